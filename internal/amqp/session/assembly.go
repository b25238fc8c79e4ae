package session

import (
	"bytes"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/tally"
)

// assembly is an incoming message: the publish method, then its header, then its body in pieces.
type assembly struct {
	active    bool
	inBody    bool // the header has arrived
	mandatory bool
	exchange  []byte // reused for the next message, like block
	key       []byte
	content   *translate.Content
	size      int
	body      []byte // received part of a body in several pieces
	empties   int    // number of body frames without bytes
	reserved  int64  // bytes of the server's budget that the message reserves
}

const maxEmptyBodies = 16

// interrupted returns the error for a method in the middle of a message.
func (a *assembly) interrupted() error {
	if a.inBody {
		return &failure{wire.Errorf(wire.CodeUnexpectedFrame, "expected content body, got non content body frame instead"), wire.IDBasicPublish}
	}
	return &failure{wire.Errorf(wire.CodeUnexpectedFrame, "expected content header for class 60, got non content header frame instead"), wire.IDBasicPublish}
}

// beginPublish handles the publish method. Errors in a message are reported after all of it has
// arrived.
func (ch *channel) beginPublish(payload []byte) error {
	var p wire.Publish
	if err := wire.ParsePublish(payload, &p); err != nil {
		return err
	}
	if p.Immediate {
		return wire.Errorf(wire.CodeNotImplemented, "immediate=true")
	}
	a := &ch.assembly
	a.active, a.mandatory = true, p.Mandatory
	a.exchange = append(a.exchange[:0], p.Exchange...)
	a.key = append(a.key[:0], p.RoutingKey...)
	if bytes.ContainsAny(a.exchange, "\r\n") {
		a.exchange = []byte(translate.CleanName(string(a.exchange)))
	}
	return nil
}

var errNoMethod = &failure{wire.Errorf(wire.CodeUnexpectedFrame, "expected method frame, got non method frame instead"), 0}

// header handles the content header.
func (ch *channel) header(payload []byte) error {
	a := &ch.assembly
	if !a.active {
		return errNoMethod
	}
	if a.inBody {
		return a.interrupted()
	}
	h, err := wire.ParseHeader(payload)
	if err != nil {
		return err
	}
	if h.Class != wire.ClassBasic {
		return wire.Errorf(wire.CodeUnexpectedFrame, "expected content header for class 60, got one for class %d instead", h.Class)
	}
	if most := ch.c.srv.limits.MaxMessage; h.BodySize > uint64(most) {
		ch.c.srv.Refused.Add(tally.MessageSize)
		return wire.Errorf(wire.CodePreconditionFailed, "message size %d is larger than configured max size %d; server.max_message in the configuration raises it", h.BodySize, most)
	}
	if a.content, err = ch.contentOf(a.exchange, h.Block); err != nil {
		return err
	}
	a.inBody, a.size = true, int(h.BodySize)
	if a.size == 0 {
		return ch.assembled(nil)
	}
	if len(h.Block) > keepBlock { // large blocks are not kept: with many channels they would use much memory
		return ch.reserve(int64(len(h.Block)))
	}
	return nil
}

// body handles a piece of the body. A body in one piece, the common case, is copied to an arena
// together with the other bodies of the same read. A body in several pieces has a buffer that grows
// with the bytes that arrive.
func (ch *channel) body(payload []byte) error {
	a := &ch.assembly
	if !a.active {
		return errNoMethod
	}
	if !a.inBody {
		return a.interrupted()
	}
	if len(payload) == 0 {
		if a.empties++; a.empties > maxEmptyBodies {
			return wire.Errorf(wire.CodeUnexpectedFrame, "more than %d empty body frames in one message", maxEmptyBodies)
		}
	}
	switch have := len(a.body) + len(payload); {
	case have > a.size:
		return &failure{wire.Errorf(wire.CodeFrameError, "the body has %d bytes, its header announced %d", have, a.size), wire.IDBasicPublish}
	case len(payload) == a.size:
		return ch.assembled(ch.c.in.keep(payload))
	case have < a.size:
		if len(a.body) == 0 && len(payload) > 0 {
			if err := ch.reserve(int64(a.size)); err != nil {
				return err
			}
		}
		if have > cap(a.body) { // the buffer grows in steps, at most to the announced size
			a.body = append(make([]byte, 0, min(a.size, max(2*have, minBody))), a.body...)
		}
		a.body = append(a.body, payload...)
		return nil
	}
	return ch.assembled(append(a.body, payload...))
}

// minBody is the first allocation for a body in several pieces. A smaller body gets its own size.
const minBody = 16 << 10

// reserve reserves bytes for the incoming message.
func (ch *channel) reserve(n int64) error {
	if err := ch.c.srv.budget.reserve(ch.c, n); err != nil {
		return &failure{translate.ToWire(err), wire.IDBasicPublish}
	}
	ch.assembly.reserved += n
	return nil
}

// drop abandons a message that has arrived in part.
func (ch *channel) drop() {
	ch.c.srv.budget.free(ch.c, ch.assembly.reserved)
	ch.assembly = assembly{}
}

// assembled resets the assembly and publishes.
func (ch *channel) assembled(body []byte) error {
	a := &ch.assembly
	ct := a.content
	if ch.mode == transactional { // a transaction has a reservation of its own
		ch.c.srv.budget.free(ch.c, a.reserved)
	} else {
		ch.c.pubs.passing += a.reserved // reserved until the broker has accepted the message
	}
	a.reserved = 0
	a.active, a.inBody, a.content, a.body, a.empties = false, false, nil, nil, 0
	return ch.publish(ct, body)
}

// lastContent is the last property block that a channel published, and its parsed form. Publishers
// tend to repeat a block, and then the parsed form is reused.
type lastContent struct {
	exchange []byte
	block    []byte
	content  *translate.Content
}

// keepBlock is the largest property block that a channel keeps. A block of at most this size is not
// counted in the budget.
const keepBlock = 1 << 10

// contentOf parses a property block, or returns the cached result for the same block.
func (ch *channel) contentOf(exchange, block []byte) (*translate.Content, error) {
	l := &ch.last
	if l.content != nil && bytes.Equal(l.block, block) && bytes.Equal(l.exchange, exchange) {
		return l.content, nil
	}
	own := bytes.Clone(block)
	ct, err := translate.ParseContent(string(exchange), own)
	if err == nil {
		err = ch.checkContent(ct)
	}
	if err != nil {
		return nil, err
	}
	if len(block) <= keepBlock {
		l.exchange, l.block, l.content = append(l.exchange[:0], exchange...), own, ct
	}
	return ct, nil
}

// checkContent checks the properties that depend on the publisher: the user id, and the address for
// direct replies.
func (ch *channel) checkContent(ct *translate.Content) error {
	p, c := &ct.Props, ch.c
	if p.Flags&wire.HasUserID != 0 && string(p.UserID) != c.user().Name && !c.srv.Auth.HasTag(c.user(), auth.TagImpersonator) {
		return wire.Errorf(wire.CodePreconditionFailed, "user_id property set to '%s' but authenticated user was '%s'", p.UserID, c.user().Name)
	}
	if string(p.ReplyTo) == translate.ReplyToQueue {
		if ch.reply == nil {
			return wire.Errorf(wire.CodePreconditionFailed, "fast reply consumer does not exist")
		}
		return ct.SetReplyTo(ch.reply.key)
	}
	return nil
}
