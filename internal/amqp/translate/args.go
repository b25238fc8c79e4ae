package translate

import (
	"fmt"
	"strconv"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Arguments of exchanges, queues and consumers that the door understands.
const (
	ArgAlternate      = "alternate-exchange"
	argMessageTTL     = "x-message-ttl"
	argExpires        = "x-expires"
	argMaxLength      = "x-max-length"
	argMaxLengthBytes = "x-max-length-bytes"
	argOverflow       = "x-overflow"
	argDLX            = "x-dead-letter-exchange"
	argDLK            = "x-dead-letter-routing-key"
	argMaxPriority    = "x-max-priority"
	argQueueType      = "x-queue-type"
	argQueueMode      = "x-queue-mode"
	argQueueVersion   = "x-queue-version"
	argSingleActive   = "x-single-active-consumer"
	argDeliveryLimit  = "x-delivery-limit"
	argConsumerTime   = "x-consumer-timeout"
	ArgPriority       = "x-priority"
)

const (
	overflowDropHead  = "drop-head"
	overflowReject    = "reject-publish"
	OverflowRejectDLX = "reject-publish-dlx" // refused messages are dead-lettered

	typeClassic = "classic"
	typeQuorum  = "quorum"

	maxMillis = 315360000000 // ten years
)

// comparedArgs are the arguments that a redeclaration of a queue must repeat.
var comparedArgs = []string{argExpires, argMessageTTL, argDLX, argDLK, argMaxLength, argMaxLengthBytes, argMaxPriority,
	argOverflow, argQueueMode, argQueueType, argSingleActive, argQueueVersion}

// QueueAttrs are the settings of a queue in AMQP's words: the flags, the raw arguments, and the
// values parsed from them.
type QueueAttrs struct {
	Durable, Exclusive, AutoDelete bool       // the flags
	Args                           wire.Table // as the client sent them

	Quorum        bool          // x-queue-type
	Single        bool          // x-single-active-consumer
	HasDLX        bool          // a dead-letter exchange is set
	DLX           string        // x-dead-letter-exchange
	HasDLK        bool          // dead letters get another key
	DLK           string        // x-dead-letter-routing-key
	Expires       time.Duration // 0: never
	Overflow      string        // x-overflow; "" if not given
	deliveryLimit int64         // -1: none
	AckTimeout    time.Duration // 0: the server's default
	ttl           int64         // -1: none
	maxLength     int64
	maxBytes      int64
	maxPriority   uint8
	Foreign       bool // another door declared the queue; the broker's settings apply
	Backoff       bool // a foreign queue that has a retry policy
	Breaker       bool // level.breaker is set, and not off
}

// ParseQueueArgs checks and parses the arguments of a new queue. where names the queue in error
// texts.
func ParseQueueArgs(flags QueueAttrs, where string) (a QueueAttrs, err error) {
	a = flags
	a.deliveryLimit, a.ttl, a.maxLength, a.maxBytes = -1, -1, -1, -1
	args := a.Args
	if v, ok := args.Get(argQueueType); ok {
		s, ok := v.Str()
		if !ok {
			return a, InvalidArg(argQueueType, where, "{unacceptable_type,%s}", v.TypeName())
		}
		switch string(s) {
		case typeClassic:
		case typeQuorum:
			a.Quorum = true
		default:
			return a, InvalidArg(argQueueType, where, `"unsupported queue type '%s'"`, s)
		}
	}
	if a.Quorum {
		if err := checkQuorum(a, where); err != nil {
			return a, err
		}
	}
	ints := []struct {
		name string
		into *int64
		min  int64
		max  int64
	}{
		{argExpires, new(int64), 1, maxMillis},
		{argMessageTTL, &a.ttl, 0, maxMillis},
		{argMaxLength, &a.maxLength, 0, -1},
		{argMaxLengthBytes, &a.maxBytes, 0, -1},
		{argMaxPriority, new(int64), 0, 255},
		{argConsumerTime, new(int64), 0, maxMillis},
		{argDeliveryLimit, &a.deliveryLimit, -1, -1},
	}
	for _, f := range ints {
		v, ok := args.Get(f.name)
		if !ok {
			continue
		}
		if f.name == argDeliveryLimit && !a.Quorum {
			return a, wire.Errorf(wire.CodePreconditionFailed, "invalid arg '%s' for %s of queue type rabbit_classic_queue", f.name, where)
		}
		n, isInt := v.Int()
		switch {
		case !isInt:
			return a, InvalidArg(f.name, where, `"expected integer, got %s"`, v.TypeName())
		case n < min(f.min, 0):
			return a, InvalidArg(f.name, where, "{value_negative,%d}", n)
		case n < f.min:
			return a, InvalidArg(f.name, where, "{value_zero,%d}", n)
		case f.max == 255 && n > f.max:
			return a, InvalidArg(f.name, where, "{max_value_exceeded,%d}", n)
		case f.max > 0 && n > f.max:
			return a, InvalidArg(f.name, where, "{value_too_large,%d}", n)
		}
		*f.into = n
	}
	if _, ok := args.Get("x-dead-letter-strategy"); ok && !a.Quorum {
		return a, wire.Errorf(wire.CodePreconditionFailed, "invalid arg 'x-dead-letter-strategy' for %s of queue type rabbit_classic_queue", where)
	}
	a.Expires = millis(*ints[0].into)
	a.maxPriority = uint8(*ints[4].into)
	a.AckTimeout = millis(*ints[5].into)
	return a, a.parseStrings(where)
}

// parseStrings parses the arguments that are not numbers.
func (a *QueueAttrs) parseStrings(where string) error {
	args := a.Args
	if v, ok := args.Get(argOverflow); ok {
		s, ok := v.Str()
		if !ok {
			return InvalidArg(argOverflow, where, "{unacceptable_type,%s}", v.TypeName())
		}
		switch a.Overflow = string(s); a.Overflow {
		case overflowDropHead, overflowReject, OverflowRejectDLX:
		default:
			return InvalidArg(argOverflow, where, "invalid_overflow")
		}
	}
	for _, f := range []struct {
		name string
		has  *bool
		into *string
	}{{argDLX, &a.HasDLX, &a.DLX}, {argDLK, &a.HasDLK, &a.DLK}} {
		v, ok := args.Get(f.name)
		if !ok {
			continue
		}
		s, ok := v.Str()
		if !ok || len(s) > 255 {
			return wire.Errorf(wire.CodePreconditionFailed, "invalid type '%s' for arg '%s' in %s", v.TypeName(), f.name, where)
		}
		*f.has, *f.into = true, string(s)
	}
	if a.HasDLK && !a.HasDLX {
		return InvalidArg(argDLK, where, "routing_key_but_no_dlx_defined")
	}
	if v, ok := args.Get(argQueueMode); ok {
		if s, isStr := v.Str(); !isStr {
			return InvalidArg(argQueueMode, where, "{unacceptable_type,%s}", v.TypeName())
		} else if m := string(s); m != "default" && m != "lazy" {
			return InvalidArg(argQueueMode, where, `"unsupported queue mode '%s'"`, m)
		}
	}
	if v, ok := args.Get(argQueueVersion); ok {
		if n, isInt := v.Int(); !isInt || n != 1 && n != 2 {
			return InvalidArg(argQueueVersion, where, `"unsupported queue version '%s'"`, ShowValue(v))
		}
	}
	if v, ok := args.Get(argSingleActive); ok {
		b, isBool := v.Bool()
		if !isBool {
			return InvalidArg(argSingleActive, where, "{unacceptable_type,%s}", v.TypeName())
		}
		a.Single = b
	}
	return nil
}

// checkQuorum refuses settings that quorum queues cannot have.
func checkQuorum(a QueueAttrs, where string) error {
	for _, p := range []struct {
		bad  bool
		name string
	}{{!a.Durable, "non-durable"}, {a.Exclusive, "exclusive-owner"}, {a.AutoDelete, "auto-delete"}} {
		if p.bad {
			return wire.Errorf(wire.CodePreconditionFailed, "invalid property '%s' for %s", p.name, where)
		}
	}
	return nil
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// InvalidArg returns the error for an argument with a forbidden value. where names the queue or
// exchange. why and args describe the fault.
func InvalidArg(arg, where, why string, args ...any) error {
	return wire.Errorf(wire.CodePreconditionFailed, "invalid arg '%s' for %s: %s", arg, where, fmt.Sprintf(why, args...))
}

// EquivalentQueue returns an error if a declaration, want, differs from the queue. where names the
// queue.
func EquivalentQueue(now, want QueueAttrs, where string) error {
	if err := SameFlag("durable", where, now.Durable, want.Durable); err != nil {
		return err
	}
	if err := SameFlag("auto_delete", where, now.AutoDelete, want.AutoDelete); err != nil {
		return err
	}
	for _, name := range comparedArgs {
		if err := SameArg(name, where, now.Args, want.Args); err != nil {
			return err
		}
	}
	return nil
}

// CompatibleQueue returns an error if a declaration contradicts a queue that another door made.
// Given arguments must equal the queue's settings. Arguments that are not given match everything.
func CompatibleQueue(now, want QueueAttrs, where string) error {
	if err := SameFlag("durable", where, now.Durable, want.Durable); err != nil {
		return err
	}
	for _, name := range comparedArgs {
		if _, given := want.Args.Get(name); given {
			if err := SameArg(name, where, now.Args, want.Args); err != nil {
				return err
			}
		}
	}
	return nil
}

// SameFlag returns an error if a flag of a declaration, want, differs from that of the queue or
// exchange. where names the queue or exchange.
func SameFlag(name, where string, now, want bool) error {
	if now == want {
		return nil
	}
	return Inequivalent(name, where, fmt.Sprintf("'%t'", want), fmt.Sprintf("'%t'", now))
}

// Inequivalent returns the error for a declaration that differs from the existing queue or
// exchange.
func Inequivalent(name, where, received, current string) error {
	return wire.Errorf(wire.CodePreconditionFailed, "inequivalent arg '%s' for %s: received %s but current is %s", name, where, received, current)
}

// SameArg compares one argument. The default queue type equals a missing one.
func SameArg(name, where string, now, want wire.Table) error {
	o, hasOld := now.Get(name)
	n, hasNew := want.Get(name)
	if name == argQueueType {
		hasOld = hasOld && string(o.Data) != typeClassic
		hasNew = hasNew && string(n.Data) != typeClassic
	}
	switch {
	case !hasOld && !hasNew:
		return nil
	case hasOld && hasNew:
		if o.Equal(n) {
			return nil
		}
		return Inequivalent(name, where, "'"+ShowValue(n)+"'", "'"+ShowValue(o)+"'")
	case hasNew:
		return Inequivalent(name, where, describeValue(n), "none")
	}
	return Inequivalent(name, where, "none", describeValue(o))
}

func describeValue(v wire.Value) string {
	return fmt.Sprintf("the value '%s' of type '%s'", ShowValue(v), v.TypeName())
}

// ShowValue formats a value for an error text. For a nested value it returns only the type.
func ShowValue(v wire.Value) string {
	if text, ok := textOf(v); ok {
		return text
	}
	if f, ok := v.Float(); ok {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return v.TypeName()
}
