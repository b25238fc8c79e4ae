package amqp

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// begin announces a message of some bytes on a channel and sends a part of it.
func (p *peer) begin(channel uint16, queue string, size, part int) {
	p.t.Helper()
	b := wire.AppendMethod(nil, channel, &wire.BasicPublish{RoutingKey: queue})
	b = wire.AppendHeader(b, channel, size, []byte{0, 0})
	p.raw(wire.AppendBody(b, channel, bytes.Repeat([]byte("x"), part), 131072))
}

// ask sends a method and reads its answer.
func (p *peer) ask(ch uint16, m wire.Method, answer wire.MethodID) {
	p.t.Helper()
	p.send(ch, m)
	if _, got := p.method(); got.ID() != answer {
		p.t.Fatalf("%T was answered with %T %+v", m, got, got)
	}
}

func (p *peer) declare(ch uint16) {
	p.t.Helper()
	p.ask(ch, &wire.QueueDeclare{Queue: "q"}, wire.IDQueueDeclareOk)
}

// TestUnfinishedBodiesAreBounded: channels and connections that begin bodies and do not finish them cannot hold more than the budget;
// the one with the most is closed, and the others finish.
func TestUnfinishedBodiesAreBounded(t *testing.T) {
	bn := start(t, Limits{MaxBodies: 1 << 20, BodyWait: 50 * time.Millisecond})
	greedy, modest := bn.connect("guest"), bn.connect("guest")
	modest.channel(1)
	modest.declare(1)
	modest.ask(1, &wire.ConfirmSelect{}, wire.IDConfirmSelectOk)
	for ch := uint16(1); ch <= 4; ch++ {
		greedy.channel(ch)
		greedy.begin(ch, "q", 200<<10, 100<<10)
	}
	until(t, "all is held", func() bool { return bn.server.budget.held() == 4*200<<10 })
	modest.begin(1, "q", 300<<10, 200<<10) // does not fit beside the others
	if m := want[*wire.ConnectionClose](greedy, 0); m.ReplyCode != wire.CodeResourceError {
		t.Fatalf("the connection that holds the most got %+v", m)
	}
	modest.raw(wire.AppendBody(nil, 1, bytes.Repeat([]byte("x"), 100<<10), 131072))
	want[*wire.BasicAck](modest, 1)
	until(t, "all is given back", func() bool { return bn.server.budget.held() == 0 })
}

// TestOneConnectionCannotHoldAll: what one connection begins on all its channels is bounded without anybody else, transactions too.
func TestOneConnectionCannotHoldAll(t *testing.T) {
	for name, begin := range map[string]func(p *peer, ch uint16){
		"bodies": func(p *peer, ch uint16) { p.begin(ch, "q", 200<<10, 100<<10) },
		"transactions": func(p *peer, ch uint16) {
			p.ask(ch, wire.Bare(wire.IDTxSelect), wire.IDTxSelectOk)
			p.begin(ch, "q", 200<<10, 200<<10)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bn := start(t, Limits{MaxBodies: 1 << 20, BodyWait: 20 * time.Millisecond})
			p := bn.connect("guest")
			p.channel(100)
			p.declare(100)
			for ch := uint16(1); ch <= 6; ch++ {
				p.channel(ch)
			}
			for ch := uint16(1); ch <= 5; ch++ {
				begin(p, ch)
			}
			begin(p, 6)
			if m := want[*wire.ConnectionClose](p, 0); m.ReplyCode != wire.CodeResourceError {
				t.Fatalf("got %+v", m)
			}
			p.nc.Close()
			until(t, "all is given back", func() bool { return bn.server.budget.held() == 0 })
		})
	}
}

// TestBudgetComesBack: whatever becomes of a message, what it held is given back.
func TestBudgetComesBack(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.channel(1)
	p.declare(1)
	gone := func(what string) {
		t.Helper()
		until(t, what, func() bool { return bn.server.budget.held() == 0 })
	}
	p.begin(1, "q", 300<<10, 300<<10)
	gone("a message that was published")
	p.begin(1, "nowhere", 300<<10, 300<<10)
	gone("a message without a queue")
	p.channel(2)
	p.begin(2, "q", 300<<10, 1000)
	until(t, "held", func() bool { return bn.server.budget.held() == 300<<10 })
	p.nc.Close()
	gone("a connection that left half-way")
	p = bn.connect("guest")
	p.channel(1)
	p.ask(1, wire.Bare(wire.IDTxSelect), wire.IDTxSelectOk)
	p.begin(1, "q", 300<<10, 300<<10)
	until(t, "held by the transaction", func() bool { return bn.server.budget.held() > 300<<10 })
	p.ask(1, wire.Bare(wire.IDTxRollback), wire.IDTxRollbackOk)
	gone("a transaction that was rolled back")
	p.begin(1, "q", 300<<10, 300<<10)
	p.ask(1, wire.Bare(wire.IDTxCommit), wire.IDTxCommitOk)
	gone("a transaction that was committed")
	p.begin(1, "q", 300<<10, 300<<10)
	p.ask(1, &wire.ChannelClose{Closing: wire.Closing{ReplyCode: 200}}, wire.IDChannelCloseOk)
	gone("a channel that was closed before its commit")
}

// TestQueuesDeletedElsewhereAreForgotten: what another door deletes leaves nothing behind here, though nobody uses its name again.
func TestQueuesDeletedElsewhereAreForgotten(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		defer p.nc.Close()
		p.channel(1)
		const n = 150
		for i := range n + 1 {
			name := fmt.Sprintf("q%d", i)
			p.ask(1, &wire.QueueDeclare{Queue: name, Durable: true, Arguments: wire.Table(nil).AddInt("x-max-priority", 5)}, wire.IDQueueDeclareOk)
			p.ask(1, &wire.QueueBind{Queue: name, Exchange: "amq.direct", RoutingKey: "k"}, wire.IDQueueBindOk)
			if i < n {
				must[int64](t)(bn.broker.DeleteQueue(t.Context(), name, surgetank.DeleteOptions{}))
			}
		}
		// One that was made again has another number: it is not the one that this door knows.
		if _, _, err := bn.broker.DeclareQueue(t.Context(), "q0", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		<-time.After(2*lookPause + n/lookEach*time.Second + 5*time.Second)
		vh := bn.server.vhost("/")
		vh.mu.RLock()
		defer vh.mu.RUnlock()
		if len(vh.queues) != 1 || vh.queues[fmt.Sprintf("q%d", n)] == nil {
			t.Errorf("%d queues are known, want the one that is left", len(vh.queues))
		}
		if b := vh.exchanges["amq.direct"].bindings; len(b) != 1 {
			t.Errorf("%d bindings are left, want 1", len(b))
		}
		if meta := must[map[string][]byte](t)(bn.broker.Meta(t.Context(), metaNamespace)); len(meta) != 2 {
			t.Errorf("%d records are left, want those of one queue and one binding", len(meta))
		}
	})
}

// TestRefusedPublishesAreBounded: a publisher whose messages are refused and who does not read that is not read any further.
func TestRefusedPublishesAreBounded(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		defer p.nc.Close()
		p.channel(1)
		p.ask(1, &wire.QueueDeclare{Queue: "q", Arguments: wire.Table(nil).AddInt("x-max-length", 0).AddString("x-overflow", "reject-publish")}, wire.IDQueueDeclareOk)
		p.ask(1, &wire.ConfirmSelect{}, wire.IDConfirmSelectOk)
		one := wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: "q"})
		one = wire.AppendBody(wire.AppendHeader(one, 1, 1, []byte{0, 0}), 1, []byte("x"), 4096)
		const n = 3 * maxNacks
		go func() {
			p.nc.SetDeadline(time.Time{})
			p.nc.Write(bytes.Repeat(one, n)) // ends when all is read
		}()
		synctest.Wait()
		c := bn.server.connections()[0]
		c.out.mu.Lock()
		held := c.out.nacks
		c.out.mu.Unlock()
		if held < maxNacks/2 || held > maxNacks+largeBuffer/len(one)+batchMax {
			t.Errorf("%d refused publishes are remembered, want about %d", held, maxNacks)
		}
		for next := uint64(1); next <= n; next++ {
			m := want[*wire.BasicNack](p, 1)
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
