package session

import (
	"sync"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Direct reply-to: a requester consumes from the pseudo-queue amq.rabbitmq.reply-to, and its
// requests carry a key. Messages to that key go straight to the requester's channel. They are not
// stored. A reply is lost if the channel is gone or its client does not read.

// replyTable finds requesters by key.
type replyTable struct {
	mu    sync.RWMutex
	byKey map[string]*replyConsumer
}

type replyConsumer struct {
	ch  *channel
	tag string
	key string
}

func (t *replyTable) find(key string) *replyConsumer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byKey[key]
}

// maxReplyOut bounds the bytes that wait for a requester that does not read.
const maxReplyOut = 16 << 20

func (ch *channel) consumeReplies(m *wire.BasicConsume) error {
	if !m.NoAck {
		return wire.Errorf(wire.CodePreconditionFailed, "reply consumer cannot acknowledge")
	}
	if ch.reply != nil {
		return wire.Errorf(wire.CodePreconditionFailed, "reply consumer already set")
	}
	if _, taken := ch.ledger.count(m.ConsumerTag); taken {
		return wire.Errorf(wire.CodeNotAllowed, "attempt to reuse consumer tag '%s'", m.ConsumerTag)
	}
	if m.ConsumerTag == "" {
		m.ConsumerTag = translate.RandomName("amq.ctag-")
	}
	r := &replyConsumer{ch: ch, tag: m.ConsumerTag, key: translate.RandomName(translate.ReplyToPrefix)}
	ch.reply, ch.last.content = r, nil
	ch.answerUnless(m.NoWait, &wire.BasicConsumeOk{ConsumerTag: r.tag})
	t := &ch.c.srv.replies
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey == nil {
		t.byKey = map[string]*replyConsumer{}
	}
	t.byKey[r.key] = r
	return nil
}

func (ch *channel) dropReplyConsumer() {
	if ch.reply == nil {
		return
	}
	t := &ch.c.srv.replies
	t.mu.Lock()
	delete(t.byKey, ch.reply.key)
	t.mu.Unlock()
	ch.reply, ch.last.content = nil, nil
}

// declareReplyQueue answers a declaration of a reply address. Servers declare it to ask whether the
// requester is still connected.
func (ch *channel) declareReplyQueue(m *wire.QueueDeclare, name string) error {
	if name != translate.ReplyToQueue && ch.c.srv.replies.find(name) == nil {
		return ch.c.vhost().NoQueue(name)
	}
	ch.answerUnless(m.NoWait, &wire.QueueDeclareOk{Queue: name, Consumers: 1})
	return nil
}

// publishReply delivers a message to a requester.
func (ch *channel) publishReply(to *route, ct *translate.Content, body []byte) {
	delivered := false
	if r := ch.c.srv.replies.find(to.key); r != nil {
		delivered = r.deliver(ct.Shown, body)
	}
	if !delivered && ch.assembly.mandatory {
		ch.returned("", to.key, ct.Block, body)
	}
	if ch.mode == confirming {
		ch.confirm(ch.seq, true)
	}
}

// deliver adds a reply to the requester's outbox. It returns false if the requester has gone or
// does not read.
func (r *replyConsumer) deliver(block, body []byte) bool {
	c := r.ch.c
	o := &c.out
	open := func() bool { // the caller holds o.mu
		return !r.ch.closed && !o.ending && o.broken == nil && (o.size == 0 || o.size+len(body) <= maxReplyOut)
	}
	o.mu.Lock()
	is := open()
	o.mu.Unlock()
	if !is {
		return false
	}
	frames := c.frames(r.ch.id, block, body)
	tag := r.ch.ledger.tag()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !open() { // the channel can have closed meanwhile
		return false
	}
	o.content(wire.AppendDeliver(o.methods, r.ch.id, r.tag, tag, false, nil, r.key), frames)
	o.wakeWriter()
	return true
}
