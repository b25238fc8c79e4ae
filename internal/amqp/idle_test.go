package amqp

import (
	"net"
	"runtime"
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestIdleConnectionsAreSmall opens many idle connections, each with a channel and a consumer, and
// measures the memory of each connection.
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
	peers := make([]*amqptest.Peer, n)
	for i := range peers {
		p := amqptest.Dial(t, bn.addr)
		p.Login("guest", "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
		p.Channel(1)
		p.Buf = nil
		peers[i] = p
	}
	each := int64(measure()-before) / n
	t.Logf("an idle connection costs %d bytes", each)
	if each > 32<<10 {
		t.Errorf("an idle connection costs %d bytes; at most 32 KiB are meant", each)
	}
	for _, p := range peers {
		p.Conn.(*net.TCPConn).SetLinger(0)
		p.Conn.Close()
	}
	amqptest.Until(t, "all end", func() bool { return len(bn.server.connections()) <= 1 })
}
