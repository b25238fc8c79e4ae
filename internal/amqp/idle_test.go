package amqp

import (
	"net"
	"runtime"
	"testing"

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
