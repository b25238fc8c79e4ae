package session

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestRefusedPublishesAreBounded: if a publisher does not read the nacks of its refused messages,
// the server stops reading from it.
func TestRefusedPublishesAreBounded(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		defer p.Conn.Close()
		p.Channel(1)
		p.Ask(1, &wire.QueueDeclare{Queue: "q", Arguments: wire.Table(nil).AddInt("x-max-length", 0).AddString("x-overflow", "reject-publish")}, wire.IDQueueDeclareOk)
		p.Ask(1, &wire.ConfirmSelect{}, wire.IDConfirmSelectOk)
		one := wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: "q"})
		one = wire.AppendBody(wire.AppendHeader(one, 1, 1, []byte{0, 0}), 1, []byte("x"), 4096)
		const n = 3 * maxNacks
		go func() {
			p.Conn.SetDeadline(time.Time{})
			p.Conn.Write(bytes.Repeat(one, n)) // returns when everything is read
		}()
		synctest.Wait()
		c := bn.connections()[0]
		c.out.mu.Lock()
		held := c.out.nacks
		c.out.mu.Unlock()
		if held < maxNacks/2 || held > maxNacks+largeBuffer/len(one)+batchMax {
			t.Errorf("%d refused publishes are remembered, want about %d", held, maxNacks)
		}
		for next := uint64(1); next <= n; next++ {
			m := amqptest.Want[*wire.BasicNack](p, 1)
			if m.DeliveryTag != next {
				t.Fatalf("nack of %d, want %d", m.DeliveryTag, next)
			}
		}
		synctest.Wait()
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		if c.out.nacks != 0 {
			t.Errorf("%d refused publishes are still counted", c.out.nacks)
		}
	})
}

// TestAPeerThatDoesNotRead sends a hundred thousand declarations and reads no reply. The server
// must stop reading, and use little memory.
func TestAPeerThatDoesNotRead(t *testing.T) {
	bn := start(t, Limits{CloseTimeout: 50 * time.Millisecond})
	p := bn.piped(t, wire.Tuning{ChannelMax: 10, FrameMax: 4096})
	nc := p.Conn
	defer nc.Close()
	p.Channel(1)
	p.Send(1, &wire.QueueDeclare{Queue: "q"})
	amqptest.Want[*wire.QueueDeclareOk](p, 1)
	p.Send(1, &wire.QueueDeclare{Queue: "a\x1fb", Passive: true}) // a full name must not reach another virtual host
	amqptest.Want[*wire.ChannelClose](p, 1)
	p.Send(1, wire.Bare(wire.IDChannelCloseOk))
	p.Channel(1)
	many := bytes.Repeat(wire.AppendMethod(nil, 1, &wire.QueueDeclare{Queue: "q", Passive: true}), 1000)
	sent := 0
	for range 500 {
		nc.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := nc.Write(many); err != nil {
			break
		}
		sent++
	}
	if sent == 500 {
		t.Error("the server read everything")
	}
	for _, c := range bn.connections() {
		c.out.mu.Lock()
		if c.out.size > 2*maxOut {
			t.Errorf("%d bytes of replies wait", c.out.size)
		}
		c.out.mu.Unlock()
	}
	other := bn.piped(t, wire.Tuning{ChannelMax: 10, FrameMax: 4096})
	defer other.Conn.Close()
	other.Channel(1)
	other.Ask(1, &wire.QueueDeclare{Queue: "works"}, wire.IDQueueDeclareOk)
}
