package translate

import (
	"strconv"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/policy"
)

// leastTTL replaces a TTL of 0, because 0 means no TTL to the broker. Such a message is delivered
// if a consumer is ready when it arrives. Otherwise it expires.
const leastTTL = time.Millisecond

// DeadLetterQueue returns the name of the broker queue through which a virtual host's dead letters
// pass on their way to an exchange.
func DeadLetterQueue(vhost string) string { return policy.Passage(vhost) }

// QueueConfig returns the broker's settings for a queue that was declared over AMQP. As in
// RabbitMQ, the queue retries at once and without end. It drops refused messages if no dead-letter
// exchange is set.
func QueueConfig(vhost string, a QueueAttrs) surgetank.QueueConfig {
	c := surgetank.QueueConfig{
		Transient:   !a.Durable || a.Exclusive, // an exclusive queue's connection ends with the broker
		Retry:       surgetank.RetryConfig{MaxAttempts: -1, Initial: -1},
		DeadLetter:  surgetank.DeadLetterDrop,
		MaxPriority: a.maxPriority,
		Overflow:    surgetank.OverflowDropOldest,
	}
	if a.HasDLX {
		c.DeadLetter = DeadLetterQueue(vhost)
		c.Overflow = surgetank.OverflowDeadLetter
	}
	if a.Overflow == overflowReject || a.Overflow == OverflowRejectDLX {
		c.Overflow = surgetank.OverflowReject
	}
	if a.deliveryLimit >= 0 {
		c.Retry.MaxAttempts = int(min(a.deliveryLimit, 1<<30)) + 1
	}
	if a.ttl >= 0 {
		c.TTL = max(millis(a.ttl), leastTTL)
	}
	c.MaxMessages, c.MaxBytes = max(a.maxLength, 0), max(a.maxBytes, 0)
	if a.keepsNothing() {
		c.MaxMessages, c.MaxBytes, c.TTL = 0, 0, leastTTL
	}
	return c
}

// keepsNothing reports whether the queue's limit is 0. In the broker, a limit of 0 means none, so
// the queue gets the least TTL instead.
func (a QueueAttrs) keepsNothing() bool {
	return (a.maxLength == 0 || a.maxBytes == 0) && a.Overflow != overflowReject && a.Overflow != OverflowRejectDLX
}

// RefusesAll reports whether the queue has a limit of 0 and refuses messages that do not fit.
func (a QueueAttrs) RefusesAll() bool {
	return (a.maxLength == 0 || a.maxBytes == 0) && !a.keepsNothing()
}

// AttrsOf describes another door's queue in AMQP's words, as far as AMQP has words for it.
func AttrsOf(c surgetank.QueueConfig) QueueAttrs {
	a := QueueAttrs{Durable: !c.Transient, deliveryLimit: -1, ttl: -1, maxLength: -1, maxBytes: -1, Backoff: c.Retry.Initial >= 0,
		Breaker: c.Level.Breaker != "" && c.Level.Breaker != surgetank.BreakerOff}
	if c.TTL > 0 {
		a.Args = a.Args.AddInt(argMessageTTL, c.TTL.Milliseconds())
	}
	if c.MaxMessages > 0 {
		a.Args = a.Args.AddInt(argMaxLength, c.MaxMessages)
	}
	if c.MaxBytes > 0 {
		a.Args = a.Args.AddInt(argMaxLengthBytes, c.MaxBytes)
	}
	if c.MaxPriority > 0 {
		a.Args = a.Args.AddInt(argMaxPriority, int64(c.MaxPriority))
	}
	if c.MaxMessages > 0 || c.MaxBytes > 0 {
		if c.Overflow == surgetank.OverflowReject || c.Overflow == "" {
			a.Args = a.Args.AddString(argOverflow, overflowReject)
		} else {
			a.Args = a.Args.AddString(argOverflow, overflowDropHead)
		}
	}
	return a
}

// Content is a published property block, parsed as far as the door needs.
type Content struct {
	exchange string
	Block    []byte            // as the client sent it
	Shown    []byte            // as consumers see it: without BCC
	Props    wire.Properties   // aliases Block
	CC       []string          // more keys, from CC and BCC
	Template surgetank.Message // without key and body
}

// ParseContent parses the property block of a message that was published to exchange. It keeps
// block.
func ParseContent(exchange string, block []byte) (*Content, error) {
	c := &Content{exchange: exchange, Block: block, Shown: block}
	var err error
	if c.Props, err = wire.ParseProperties(block); err != nil {
		return nil, err
	}
	p, m := &c.Props, &c.Template
	if p.Flags&wire.HasExpiration != 0 {
		ms, err := parseExpiration(string(p.Expiration))
		if err != nil {
			return nil, err
		}
		m.TTL = max(millis(ms), leastTTL)
	}
	if p.Flags&wire.HasPriority != 0 {
		m.Priority = p.Priority
	}
	m.ContentType = string(p.ContentType)
	if len(p.Headers) > 0 {
		hasBCC, err := c.readHeaders()
		if err != nil {
			return nil, err
		}
		if hasBCC {
			without := withoutBCC(p)
			c.Shown = without.Append(nil)
		}
	}
	if 3+len(exchange)+len(c.Shown) > maxBlock {
		return nil, wire.Errorf(wire.CodePreconditionFailed, "message properties of %d bytes are larger than the %d that are allowed", len(block), maxBlock)
	}
	c.store()
	return c, nil
}

// maxBlock leaves room for the smallest other data that counts as headers.
const maxBlock = surgetank.MaxHeaderBytes - 512

// withoutBCC returns the properties that consumers see.
func withoutBCC(p *wire.Properties) wire.Properties {
	without := *p
	without.Headers = p.Headers.Without(func(n []byte) bool { return string(n) == "BCC" })
	return without
}

// store sets the stored form of the block.
func (c *Content) store() {
	p := withoutBCC(&c.Props)
	*door.Opaque(&c.Template), c.Template.Headers = Store(0, c.exchange, &p, c.Template.ContentType)
}

// readHeaders handles the headers that have a meaning for the door.
func (c *Content) readHeaders() (hasBCC bool, err error) {
	m := &c.Template
	for name, v := range c.Props.Headers.All() {
		switch string(name) {
		case "CC", "BCC":
			hasBCC = hasBCC || name[0] == 'B'
			c.CC, err = appendKeys(c.CC, string(name), v)
		case "x-delay":
			m.Delay, err = delayOf(v)
		case "x-deduplication-header":
			m.DedupID, err = identityOf(string(name), "dedup id", v)
		case "x-group-id":
			m.Group, err = identityOf(string(name), "group", v)
		}
		if err != nil {
			return false, err
		}
	}
	return hasBCC, nil
}

// maxRoutingKeys bounds CC and BCC together. Each key is routed, and one message must not cost
// thousands of lookups.
const maxRoutingKeys = 1024

func appendKeys(keys []string, name string, v wire.Value) ([]string, error) {
	unacceptable := func(v wire.Value) error {
		return wire.Errorf(wire.CodePreconditionFailed, `invalid message: {unacceptable_type_in_header,"%s",%s}`, name, v.TypeName())
	}
	list, ok := v.Array()
	if !ok {
		return nil, unacceptable(v)
	}
	for e := range list.All() {
		s, ok := e.Str()
		if !ok {
			return nil, unacceptable(e)
		}
		if len(keys) == maxRoutingKeys {
			return nil, wire.Errorf(wire.CodePreconditionFailed, "invalid message: more than %d keys in CC and BCC", maxRoutingKeys)
		}
		keys = append(keys, string(s))
	}
	return keys, nil
}

// parseExpiration parses the expiration property, a decimal number of milliseconds.
func parseExpiration(s string) (int64, error) {
	digits := strings.TrimPrefix(s, "-")
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		end++
	}
	refuse := func(why string, args ...any) (int64, error) {
		return 0, wire.Errorf(wire.CodePreconditionFailed, "invalid expiration '%s': "+why, append([]any{s}, args...)...)
	}
	switch {
	case end == 0:
		return refuse("no_integer")
	case end < len(digits):
		return refuse(`{leftover_string,"%s"}`, digits[end:])
	case digits != s && strings.Trim(digits, "0") != "":
		return refuse("{value_negative,%s}", s)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > maxMillis {
		return refuse("{value_too_large,%s}", digits)
	}
	return n, nil
}

// Other doors show these properties as headers with these names, and accept them.
var propertyHeaders = []propertyHeader{
	{"content-encoding", wire.HasContentEncoding},
	{"correlation-id", wire.HasCorrelationID},
	{"reply-to", wire.HasReplyTo},
	{"message-id", wire.HasMessageID},
	{"type", wire.HasType},
	{"app-id", wire.HasAppID},
}

type propertyHeader struct {
	name string
	flag uint16
}

// field returns the property's field. It is a method and not a function value, so that p can stay
// on the stack.
func (h *propertyHeader) field(p *wire.Properties) *[]byte {
	switch h.flag {
	case wire.HasContentEncoding:
		return &p.ContentEncoding
	case wire.HasCorrelationID:
		return &p.CorrelationID
	case wire.HasReplyTo:
		return &p.ReplyTo
	case wire.HasMessageID:
		return &p.MessageID
	case wire.HasType:
		return &p.Type
	}
	return &p.AppID
}

// textHeaders returns the headers that other doors, group_by and sinks see of a property block: the
// properties above and the headers with a scalar value. It stops at budget bytes.
func textHeaders(p *wire.Properties, budget int) []surgetank.Header {
	var list []surgetank.Header
	add := func(name, value string) {
		value, _ = showText(value)
		if budget -= len(name) + len(value); budget >= 0 && len(list) < surgetank.MaxHeaders && name != "" {
			list = append(list, surgetank.Header{Name: name, Value: value})
		}
	}
	for _, f := range propertyHeaders {
		if p.Flags&f.flag != 0 {
			add(f.name, string(*f.field(p)))
		}
	}
	for name, v := range p.Headers.All() {
		if text, ok := textOf(v); ok {
			add(string(name), text)
		}
	}
	return list
}

// FencingHeader is the header that gives a consumer the fencing token of its lease.
const FencingHeader = "x-fencing-token"

// Outgoing returns a delivery's AMQP form: the exchange and key of its publish, and its property
// block. quorum says that its queue counts deliveries in a header. The block can be built in buf,
// and is then valid until the next use of buf. Outgoing returns the grown buf.
func Outgoing(d *surgetank.Delivery, quorum bool, buf []byte) (exchange []byte, key string, block, scratch []byte) {
	f, buf, ok := ReadStored(&d.Message, buf)
	exchange, key, block = f.Exchange, d.Key, f.Block
	if !ok {
		exchange, block = nil, ForeignBlock(d)
		if key == "" {
			_, key = fullname.Split(d.Queue)
		}
	}
	count := quorum && d.Attempt > 1
	if len(d.Deaths) == 0 && !count && d.FencingToken == 0 {
		return exchange, key, block, buf
	}
	p, err := wire.ParseProperties(block)
	if err != nil {
		return exchange, key, block, buf // it was valid when it was stored; the client gets it unchanged
	}
	if len(d.Deaths) > 0 {
		p.Headers = WithDeaths(p.Headers, ok && f.Flags&OpaqueDeaths != 0, DeathsOf(d, string(exchange), &p))
		p.Flags |= wire.HasHeaders
	}
	if count {
		p.Headers = p.Headers.Without(func(n []byte) bool { return string(n) == "x-delivery-count" })
		p.Headers = append(wire.Table(nil), p.Headers...).AddInt("x-delivery-count", int64(d.Attempt-1))
		p.Flags |= wire.HasHeaders
	}
	if d.FencingToken != 0 { // a publisher cannot forge it
		p.Headers = p.Headers.Without(func(n []byte) bool { return string(n) == FencingHeader })
		p.Headers = append(wire.Table(nil), p.Headers...).AddInt(FencingHeader, d.FencingToken)
		p.Flags |= wire.HasHeaders
	}
	return exchange, key, p.Append(nil), buf
}

// ForeignBlock makes the property block of a message from another door.
func ForeignBlock(d *surgetank.Delivery) []byte {
	p := wire.Properties{Flags: wire.HasDeliveryMode, DeliveryMode: 2}
	if d.ContentType != "" {
		p.SetString(wire.HasContentType, &p.ContentType, []byte(d.ContentType))
	}
	if d.Priority > 0 {
		p.Flags |= wire.HasPriority
		p.Priority = d.Priority
	}
	if !d.Time.IsZero() {
		p.Flags |= wire.HasTimestamp
		p.Timestamp = uint64(d.Time.Unix())
	}
next:
	for _, h := range d.Headers {
		for _, f := range propertyHeaders {
			if strings.EqualFold(h.Name, f.name) && p.Flags&f.flag == 0 {
				p.SetString(f.flag, f.field(&p), []byte(h.Value))
				if p.Flags&f.flag != 0 {
					continue next
				}
			}
		}
		p.Flags |= wire.HasHeaders
		p.Headers = p.Headers.AddString(h.Name, h.Value)
	}
	if d.Group != "" {
		if _, ok := p.Headers.Get("x-group-id"); !ok {
			p.Flags |= wire.HasHeaders
			p.Headers = p.Headers.AddString("x-group-id", d.Group)
		}
	}
	return p.Append(nil)
}

// SetReplyTo replaces the address for replies.
func (c *Content) SetReplyTo(key string) error {
	p := c.Props
	p.ReplyTo = []byte(key)
	c.Block = p.Append(nil)
	var err error
	if c.Props, err = wire.ParseProperties(c.Block); err != nil {
		return err
	}
	shown := withoutBCC(&c.Props)
	c.Shown = shown.Append(nil)
	c.store()
	return nil
}
