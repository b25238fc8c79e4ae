package amqp

import (
	"fmt"
	"strconv"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Arguments of exchanges, queues and consumers that mean something here.
const (
	argAlternate      = "alternate-exchange"
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
	argPriority       = "x-priority"
)

const (
	overflowDropHead  = "drop-head"
	overflowReject    = "reject-publish"
	overflowRejectDLX = "reject-publish-dlx"

	typeClassic = "classic"
	typeQuorum  = "quorum"

	maxMillis = 315360000000 // ten years
)

// comparedArgs are the arguments that a queue's redeclaration must repeat.
var comparedArgs = []string{argExpires, argMessageTTL, argDLX, argDLK, argMaxLength, argMaxLengthBytes, argMaxPriority,
	argOverflow, argQueueMode, argQueueType, argSingleActive, argQueueVersion}

// queueAttrs are the settings of a queue in AMQP's words: the flags, the arguments as they came, and what was read
// out of them.
type queueAttrs struct {
	durable, exclusive, autoDelete bool
	args                           wire.Table

	quorum        bool
	single        bool
	hasDLX        bool
	dlx           string
	hasDLK        bool
	dlk           string
	expires       time.Duration // 0: never
	overflow      string
	deliveryLimit int64         // -1: none
	ackTimeout    time.Duration // 0: the server's
	ttl           int64         // -1: none
	maxLength     int64
	maxBytes      int64
	maxPriority   uint8
	foreign       bool // another door made the queue: its settings are its own
	backoff       bool // and it has a retry policy
}

// parseQueueArgs checks the arguments of a queue to be made and reads them. where names the queue in error texts.
func parseQueueArgs(flags queueAttrs, where string) (a queueAttrs, err error) {
	a = flags
	a.deliveryLimit, a.ttl, a.maxLength, a.maxBytes = -1, -1, -1, -1
	args := a.args
	if v, ok := args.Get(argQueueType); ok {
		s, ok := v.Str()
		if !ok {
			return a, invalidArg(argQueueType, where, "{unacceptable_type,%s}", v.TypeName())
		}
		switch string(s) {
		case typeClassic:
		case typeQuorum:
			a.quorum = true
		default:
			return a, invalidArg(argQueueType, where, `"unsupported queue type '%s'"`, s)
		}
	}
	if a.quorum {
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
		if f.name == argDeliveryLimit && !a.quorum {
			return a, wire.Errorf(wire.CodePreconditionFailed, "invalid arg '%s' for %s of queue type rabbit_classic_queue", f.name, where)
		}
		n, isInt := v.Int()
		switch {
		case !isInt:
			return a, invalidArg(f.name, where, `"expected integer, got %s"`, v.TypeName())
		case n < min(f.min, 0):
			return a, invalidArg(f.name, where, "{value_negative,%d}", n)
		case n < f.min:
			return a, invalidArg(f.name, where, "{value_zero,%d}", n)
		case f.max == 255 && n > f.max:
			return a, invalidArg(f.name, where, "{max_value_exceeded,%d}", n)
		case f.max > 0 && n > f.max:
			return a, invalidArg(f.name, where, "{value_too_large,%d}", n)
		}
		*f.into = n
	}
	if _, ok := args.Get("x-dead-letter-strategy"); ok && !a.quorum {
		return a, wire.Errorf(wire.CodePreconditionFailed, "invalid arg 'x-dead-letter-strategy' for %s of queue type rabbit_classic_queue", where)
	}
	a.expires = millis(*ints[0].into)
	a.maxPriority = uint8(*ints[4].into)
	a.ackTimeout = millis(*ints[5].into)
	return a, a.parseStrings(where)
}

// parseStrings reads the arguments that are not numbers.
func (a *queueAttrs) parseStrings(where string) error {
	args := a.args
	if v, ok := args.Get(argOverflow); ok {
		s, ok := v.Str()
		if !ok {
			return invalidArg(argOverflow, where, "{unacceptable_type,%s}", v.TypeName())
		}
		switch a.overflow = string(s); a.overflow {
		case overflowDropHead, overflowReject, overflowRejectDLX:
		default:
			return invalidArg(argOverflow, where, "invalid_overflow")
		}
	}
	for _, f := range []struct {
		name string
		has  *bool
		into *string
	}{{argDLX, &a.hasDLX, &a.dlx}, {argDLK, &a.hasDLK, &a.dlk}} {
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
	if a.hasDLK && !a.hasDLX {
		return invalidArg(argDLK, where, "routing_key_but_no_dlx_defined")
	}
	if v, ok := args.Get(argQueueMode); ok {
		if s, isStr := v.Str(); !isStr {
			return invalidArg(argQueueMode, where, "{unacceptable_type,%s}", v.TypeName())
		} else if m := string(s); m != "default" && m != "lazy" {
			return invalidArg(argQueueMode, where, `"unsupported queue mode '%s'"`, m)
		}
	}
	if v, ok := args.Get(argQueueVersion); ok {
		if n, isInt := v.Int(); !isInt || n != 1 && n != 2 {
			return invalidArg(argQueueVersion, where, `"unsupported queue version '%s'"`, showValue(v))
		}
	}
	if v, ok := args.Get(argSingleActive); ok {
		b, isBool := v.Bool()
		if !isBool {
			return invalidArg(argSingleActive, where, "{unacceptable_type,%s}", v.TypeName())
		}
		a.single = b
	}
	return nil
}

// checkQuorum refuses what quorum queues cannot be.
func checkQuorum(a queueAttrs, where string) error {
	for _, p := range []struct {
		bad  bool
		name string
	}{{!a.durable, "non-durable"}, {a.exclusive, "exclusive-owner"}, {a.autoDelete, "auto-delete"}} {
		if p.bad {
			return wire.Errorf(wire.CodePreconditionFailed, "invalid property '%s' for %s", p.name, where)
		}
	}
	return nil
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func invalidArg(arg, where, why string, args ...any) error {
	return wire.Errorf(wire.CodePreconditionFailed, "invalid arg '%s' for %s: %s", arg, where, fmt.Sprintf(why, args...))
}

// equivalentQueue tells whether a declaration repeats what the queue is; where names the queue.
func equivalentQueue(now, want queueAttrs, where string) error {
	if err := sameFlag("durable", where, now.durable, want.durable); err != nil {
		return err
	}
	if err := sameFlag("auto_delete", where, now.autoDelete, want.autoDelete); err != nil {
		return err
	}
	for _, name := range comparedArgs {
		if err := sameArg(name, where, now.args, want.args); err != nil {
			return err
		}
	}
	return nil
}

// compatibleQueue tells whether a declaration contradicts a queue that another door made: arguments that are given must be
// its settings, those that are not given stay what they are.
func compatibleQueue(now, want queueAttrs, where string) error {
	if err := sameFlag("durable", where, now.durable, want.durable); err != nil {
		return err
	}
	for _, name := range comparedArgs {
		if _, given := want.args.Get(name); given {
			if err := sameArg(name, where, now.args, want.args); err != nil {
				return err
			}
		}
	}
	return nil
}

func sameFlag(name, where string, now, want bool) error {
	if now == want {
		return nil
	}
	return inequivalent(name, where, fmt.Sprintf("'%t'", want), fmt.Sprintf("'%t'", now))
}

func inequivalent(name, where, received, current string) error {
	return wire.Errorf(wire.CodePreconditionFailed, "inequivalent arg '%s' for %s: received %s but current is %s", name, where, received, current)
}

// sameArg compares one argument. The queue type that every queue has unless it says otherwise is the same as none.
func sameArg(name, where string, now, want wire.Table) error {
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
		return inequivalent(name, where, "'"+showValue(n)+"'", "'"+showValue(o)+"'")
	case hasNew:
		return inequivalent(name, where, describeValue(n), "none")
	}
	return inequivalent(name, where, "none", describeValue(o))
}

func describeValue(v wire.Value) string {
	return fmt.Sprintf("the value '%s' of type '%s'", showValue(v), v.TypeName())
}

// showValue prints a value for an error text; nested ones only by their type.
func showValue(v wire.Value) string {
	if text, ok := textOf(v); ok {
		return text
	}
	if f, ok := v.Float(); ok {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return v.TypeName()
}
