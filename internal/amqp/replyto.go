package amqp

import (
	"sync"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// Direct reply-to: a requester consumes from the pseudo-queue amq.rabbitmq.reply-to, and what others publish to the key that its
// requests carry goes straight to its channel. Nothing of it is stored; a reply to a channel that is gone, or whose client
// does not read, has nowhere to go.

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

// maxReplyOut is how many bytes may wait for a requester that does not read.
const maxReplyOut = 16 << 20

func (ch *channel) consumeReplies(m *wire.BasicConsume) error {
	if !m.NoAck {
		return wire.Errorf(wire.CodePreconditionFailed, "reply consumer cannot acknowledge")
	}
	if ch.reply != nil {
		return wire.Errorf(wire.CodePreconditionFailed, "reply consumer already set")
	}
	c := ch.c
	c.mu.Lock()
	_, taken := ch.consumers[m.ConsumerTag]
	c.mu.Unlock()
	if taken {
		return wire.Errorf(wire.CodeNotAllowed, "attempt to reuse consumer tag '%s'", m.ConsumerTag)
	}
	if m.ConsumerTag == "" {
		m.ConsumerTag = randomName("amq.ctag-")
	}
	r := &replyConsumer{ch: ch, tag: m.ConsumerTag, key: randomName(replyToPrefix)}
	ch.reply, ch.last.content = r, nil
	ch.answerUnless(m.NoWait, &wire.BasicConsumeOk{ConsumerTag: r.tag})
	t := &c.srv.replies
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

// declareReplyQueue answers a declaration of a reply address, which is how a server asks whether the requester is
// still there.
func (ch *channel) declareReplyQueue(m *wire.QueueDeclare, name string) error {
	if name != replyToQueue && ch.c.srv.replies.find(name) == nil {
		return ch.c.vhost().noQueue(name)
	}
	ch.answerUnless(m.NoWait, &wire.QueueDeclareOk{Queue: name, Consumers: 1})
	return nil
}

// publishReply delivers a message to a requester.
func (ch *channel) publishReply(to *route, ct *content, body []byte) {
	delivered := false
	if r := ch.c.srv.replies.find(to.key); r != nil {
		_, _, block, _ := splitOpaque(ct.template.Opaque)
		delivered = r.deliver(block, body)
	}
	if !delivered && ch.assembly.mandatory {
		ch.returned("", to.key, ct.block, body)
	}
	if ch.mode == confirming {
		ch.confirm(ch.seq, true)
	}
}

func (r *replyConsumer) deliver(block, body []byte) bool {
	c := r.ch.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ch.closed || c.ending || c.broken != nil || len(c.out)+len(body) > maxReplyOut && len(c.out) > 0 {
		return false
	}
	c.out = wire.AppendDeliver(c.out, r.ch.id, r.tag, r.ch.nextTag, false, nil, r.key)
	r.ch.nextTag++
	c.out = wire.AppendHeader(c.out, r.ch.id, len(body), block)
	c.out = wire.AppendBody(c.out, r.ch.id, body, int(c.tuned.FrameMax))
	c.wakeWriter()
	return true
}
