package amqp

import (
	"bytes"
	"testing"
	"time"

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
