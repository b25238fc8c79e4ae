package amqp

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
)

// TestUnfinishedBodiesAreBounded: unfinished bodies of all channels and connections together stay
// within the budget. The connection with the largest reservation is closed, and the other
// connections finish.
func TestUnfinishedBodiesAreBounded(t *testing.T) {
	bn := start(t, Limits{MaxBodies: 1 << 20, BodyWait: 50 * time.Millisecond})
	greedy, modest := bn.connect("guest"), bn.connect("guest")
	modest.Channel(1)
	modest.Declare(1)
	modest.Ask(1, &wire.ConfirmSelect{}, wire.IDConfirmSelectOk)
	for ch := uint16(1); ch <= 4; ch++ {
		greedy.Channel(ch)
		greedy.Begin(ch, "q", 200<<10, 100<<10)
	}
	amqptest.Until(t, "everything is reserved", func() bool { return bn.server.shared.Reserved() == 4*200<<10 })
	modest.Begin(1, "q", 300<<10, 200<<10) // this body and the other bodies together exceed the budget
	if m := amqptest.Want[*wire.ConnectionClose](greedy, 0); m.ReplyCode != wire.CodeResourceError {
		t.Fatalf("the connection with the largest reservation got %+v", m)
	}
	modest.Raw(wire.AppendBody(nil, 1, bytes.Repeat([]byte("x"), 100<<10), 131072))
	amqptest.Want[*wire.BasicAck](modest, 1)
	amqptest.Until(t, "nothing is reserved", func() bool { return bn.server.shared.Reserved() == 0 })
}

// TestOneConnectionCannotHoldAll: the unfinished bodies and transactions of one connection are
// bounded, even if no other connection needs the budget.
func TestOneConnectionCannotHoldAll(t *testing.T) {
	for name, begin := range map[string]func(p *amqptest.Peer, ch uint16){
		"bodies": func(p *amqptest.Peer, ch uint16) { p.Begin(ch, "q", 200<<10, 100<<10) },
		"transactions": func(p *amqptest.Peer, ch uint16) {
			p.Ask(ch, wire.Bare(wire.IDTxSelect), wire.IDTxSelectOk)
			p.Begin(ch, "q", 200<<10, 200<<10)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bn := start(t, Limits{MaxBodies: 1 << 20, BodyWait: 20 * time.Millisecond})
			p := bn.connect("guest")
			p.Channel(100)
			p.Declare(100)
			for ch := uint16(1); ch <= 6; ch++ {
				p.Channel(ch)
			}
			for ch := uint16(1); ch <= 5; ch++ {
				begin(p, ch)
			}
			begin(p, 6)
			if m := amqptest.Want[*wire.ConnectionClose](p, 0); m.ReplyCode != wire.CodeResourceError {
				t.Fatalf("got %+v", m)
			}
			p.Conn.Close()
			amqptest.Until(t, "nothing is reserved", func() bool { return bn.server.shared.Reserved() == 0 })
		})
	}
}

// TestBudgetComesBack: a message frees its share of the budget, however it ends.
func TestBudgetComesBack(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.Channel(1)
	p.Declare(1)
	gone := func(what string) {
		t.Helper()
		amqptest.Until(t, what, func() bool { return bn.server.shared.Reserved() == 0 })
	}
	p.Begin(1, "q", 300<<10, 300<<10)
	gone("a message that was published")
	p.Begin(1, "nowhere", 300<<10, 300<<10)
	gone("a message without a queue")
	p.Channel(2)
	p.Begin(2, "q", 300<<10, 1000)
	amqptest.Until(t, "the body is reserved", func() bool { return bn.server.shared.Reserved() == 300<<10 })
	p.Conn.Close()
	gone("a connection that left half-way")
	p = bn.connect("guest")
	p.Channel(1)
	p.Ask(1, wire.Bare(wire.IDTxSelect), wire.IDTxSelectOk)
	p.Begin(1, "q", 300<<10, 300<<10)
	amqptest.Until(t, "the transaction reserves more", func() bool { return bn.server.shared.Reserved() > 300<<10 })
	p.Ask(1, wire.Bare(wire.IDTxRollback), wire.IDTxRollbackOk)
	gone("a transaction that was rolled back")
	p.Begin(1, "q", 300<<10, 300<<10)
	p.Ask(1, wire.Bare(wire.IDTxCommit), wire.IDTxCommitOk)
	gone("a transaction that was committed")
	p.Begin(1, "q", 300<<10, 300<<10)
	p.Ask(1, &wire.ChannelClose{Closing: wire.Closing{ReplyCode: 200}}, wire.IDChannelCloseOk)
	gone("a channel that was closed before its commit")
}

// TestQueuesDeletedElsewhereAreForgotten: if another door deletes a queue, this door forgets all it
// stored about the queue, even if the name is never used again.
func TestQueuesDeletedElsewhereAreForgotten(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		defer p.Conn.Close()
		p.Channel(1)
		const n = 150
		for i := range n + 1 {
			name := fmt.Sprintf("q%d", i)
			p.Ask(1, &wire.QueueDeclare{Queue: name, Durable: true, Arguments: wire.Table(nil).AddInt("x-max-priority", 5)}, wire.IDQueueDeclareOk)
			p.Ask(1, &wire.QueueBind{Queue: name, Exchange: "amq.direct", RoutingKey: "k"}, wire.IDQueueBindOk)
			if i < n {
				amqptest.Must[int64](t)(bn.broker.DeleteQueue(t.Context(), name, surgetank.DeleteOptions{}))
			}
		}
		// A queue that was declared again has another number, so this door does not confuse it with
		// the old queue.
		if _, _, err := bn.broker.DeclareQueue(t.Context(), "q0", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		<-time.After(2*time.Minute + 5*time.Second)
		vh := bn.server.vhosts.Vhost("/")
		for i := range n + 1 {
			if q := vh.Known(fmt.Sprintf("q%d", i)); (q != nil) != (i == n) {
				t.Errorf("queue %d of %d is known: %v", i, n, q != nil)
			}
		}
		if to := vh.Route(vh.Exchange("amq.direct"), []string{"k"}, nil).Queues; len(to) != 1 {
			t.Errorf("bindings lead to %v, want one queue", to)
		}
		if meta := amqptest.Must[door.MetaState](t)(bn.broker.Meta(t.Context(), "amqp")).Values; len(meta) != 2 {
			t.Errorf("%d records are left, want those of one queue and one binding", len(meta))
		}
	})
}
