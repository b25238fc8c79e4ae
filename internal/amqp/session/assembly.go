package session

import (
	"bytes"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/tally"
)

// assembly is a message on its way in: the publish method, then its header, then its body in
// pieces.
type assembly struct {
	active    bool
	inBody    bool // the header is in
	mandatory bool
	exchange  []byte // reused from one message to the next, as block is
	key       []byte
	content   *translate.Content
	size      int
	body      []byte // what is in of a body that comes in several pieces
	empties   int    // body frames without bytes
	held      int64  // bytes that it has of the server's budget
}

const maxEmptyBodies = 16

// interrupted is the error for a method in the middle of a message.
func (a *assembly) interrupted() error {
	if a.inBody {
		return &failure{wire.Errorf(wire.CodeUnexpectedFrame, "expected content body, got non content body frame instead"), wire.IDBasicPublish}
	}
	return &failure{wire.Errorf(wire.CodeUnexpectedFrame, "expected content header for class 60, got non content header frame instead"), wire.IDBasicPublish}
}

// beginPublish takes the method. What is wrong with the message is said when all of it is in.
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

// header takes the content header.
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
	if len(h.Block) > keepBlock { // with many channels, property blocks alone are much
		return ch.hold(int64(len(h.Block)))
	}
	return nil
}

// body takes a piece of the body. A body in one piece, the common case, is put beside the others of
// the same read; one in several grows by what has arrived.
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
			if err := ch.hold(int64(a.size)); err != nil {
				return err
			}
		}
		if have > cap(a.body) { // what was announced is the most, not the least, that is allocated
			a.body = append(make([]byte, 0, min(a.size, max(2*have, minBody))), a.body...)
		}
		a.body = append(a.body, payload...)
		return nil
	}
	return ch.assembled(append(a.body, payload...))
}

// minBody is the least that is allocated for a body that comes in pieces, unless it is smaller.
const minBody = 16 << 10

// hold reserves bytes for the message that is coming in.
func (ch *channel) hold(n int64) error {
	if err := ch.c.srv.budget.take(ch.c, n); err != nil {
		return &failure{translate.ToWire(err), wire.IDBasicPublish}
	}
	ch.assembly.held += n
	return nil
}

// drop gives up a message that is half in.
func (ch *channel) drop() {
	ch.c.srv.budget.give(ch.c, ch.assembly.held)
	ch.assembly = assembly{}
}

// assembled resets the assembly and publishes.
func (ch *channel) assembled(body []byte) error {
	a := &ch.assembly
	ct := a.content
	if ch.mode == transactional { // which counts for itself
		ch.c.srv.budget.give(ch.c, a.held)
	} else {
		ch.c.pubs.passing += a.held // until the broker has taken the message
	}
	a.held = 0
	a.active, a.inBody, a.content, a.body, a.empties = false, false, nil, nil, 0
	return ch.publish(ct, body)
}

// lastContent is the property block that a channel published last. Publishers tend to send the same
// block again and again, and then all that was made of it serves once more.
type lastContent struct {
	exchange []byte
	block    []byte
	content  *translate.Content
}

// keepBlock is the size of a property block that a channel keeps, and of what need not be counted.
const keepBlock = 1 << 10

// contentOf takes a property block apart, or finds that it has been already.
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

// checkContent checks what depends on who publishes: the user id, and the address for direct
// replies.
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
