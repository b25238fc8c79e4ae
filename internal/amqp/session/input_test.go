package session

import (
	"io"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestIdleConnectionsGiveBackTheirBuffers: after a burst the reader's buffer is freed. A peer that
// goes silent inside a frame is still closed in time.
func TestIdleConnectionsGiveBackTheirBuffers(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 131072, Heartbeat: 60})
		defer p.Conn.Close()
		p.Channel(1)
		one := wire.AppendHeader(wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: "nowhere"}), 1, 60_000, []byte{0, 0})
		one = wire.AppendBody(one, 1, make([]byte, 60_000), 131072)
		p.Raw(one)
		p.Ask(1, &wire.QueueDeclare{Queue: "q"}, wire.IDQueueDeclareOk)
		c := bn.connections()[0]
		if !c.in.large.Load() {
			t.Fatal("a frame of 60,000 bytes was read with a small buffer")
		}
		<-time.After(4 * time.Second)
		if c.in.large.Load() {
			t.Error("the buffer is still large after 4 s of silence")
		}
		start := time.Now()
		p.Raw(one[:40_000])
		p.Conn.SetDeadline(time.Time{})
		io.Copy(io.Discard, p.Conn) // returns when the server closes the socket
		if d := time.Since(start); d > 3*time.Minute {
			t.Errorf("a peer that stopped in a frame was given up after %v, want two and a half minutes or so", d)
		}
	})
}
