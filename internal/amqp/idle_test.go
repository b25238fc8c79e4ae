package amqp

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestIdleConnectionsAreSmall opens many connections with a channel and a consumer each, all idle, and looks at what
// one costs.
func TestIdleConnectionsAreSmall(t *testing.T) {
	bn := start(t, Limits{})
	const n = 500
	measure := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	bn.connect("guest")
	before := measure()
	peers := make([]*peer, n)
	for i := range peers {
		p := dialRaw(t, bn.addr)
		p.login("guest", "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
		p.channel(1)
		p.buf = nil
		peers[i] = p
	}
	each := int64(measure()-before) / n
	t.Logf("an idle connection costs %d bytes", each)
	if each > 32<<10 {
		t.Errorf("an idle connection costs %d bytes; at most 32 KiB are meant", each)
	}
	for _, p := range peers {
		p.nc.(*net.TCPConn).SetLinger(0)
		p.nc.Close()
	}
	until(t, "all end", func() bool { return len(bn.server.connections()) <= 1 })
}

// TestIdleConnectionsGiveBackTheirBuffers: what a burst needed is given back when it is over, and a peer that goes silent
// half-way through a frame is still given up.
func TestIdleConnectionsGiveBackTheirBuffers(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 131072, Heartbeat: 60})
		defer p.nc.Close()
		p.channel(1)
		one := wire.AppendHeader(wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: "nowhere"}), 1, 60_000, []byte{0, 0})
		one = wire.AppendBody(one, 1, make([]byte, 60_000), 131072)
		p.raw(one)
		p.ask(1, &wire.QueueDeclare{Queue: "q"}, wire.IDQueueDeclareOk)
		c := bn.server.connections()[0]
		if !c.in.large.Load() {
			t.Fatal("a frame of 60,000 bytes was read with a small buffer")
		}
		<-time.After(4 * time.Second)
		if c.in.large.Load() {
			t.Error("the buffer is still large after 4 s of silence")
		}
		start := time.Now()
		p.raw(one[:40_000])
		p.nc.SetDeadline(time.Time{})
		io.Copy(io.Discard, p.nc) // until the server hangs up
		if d := time.Since(start); d > 3*time.Minute {
			t.Errorf("a peer that stopped in a frame was given up after %v, want two and a half minutes or so", d)
		}
	})
}
