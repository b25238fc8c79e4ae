package amqp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/test/hostile"
)

// FuzzConnection sends any bytes to an open connection. The server must answer with valid frames,
// end the connection, and keep nothing of it. Run it with -fuzzminimizetime=1x, because its
// coverage varies from run to run.
func FuzzConnection(f *testing.F) {
	bn := start(f, Limits{MaxMessage: 1 << 20})
	bn.user("remote", auth.AllPermissions)
	names, err := filepath.Glob("wire/testdata/captured/*")
	if err != nil || len(names) == 0 {
		f.Fatalf("no captured frames: %v", err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		// The bytes that a real client sent after connection.open.
		b = b[strings.Index(string(b), string(method(0, &wire.ConnectionOpen{VirtualHost: "/"})))+16:]
		f.Add(b)
	}
	for _, c := range hostile.Cases() {
		if b := c.Offence(); len(b) > 0 && len(b) < 1000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		nc := bn.pipe()
		p := &amqptest.Peer{T: t, Conn: nc}
		p.Login("remote", "/", wire.Tuning{ChannelMax: 5, FrameMax: 8192})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				fr, err := p.Frame()
				if err != nil {
					return
				}
				switch fr.Type {
				case wire.FrameMethod:
					m, err := wire.ParseMethod(fr.Payload)
					if err != nil {
						t.Errorf("the server sent % x: %v", fr.Payload, err)
						return
					}
					if _, ok := m.(*wire.ConnectionClose); ok {
						go nc.Write(method(0, wire.Bare(wire.IDConnectionCloseOk)))
					}
				case wire.FrameHeader:
					h, err := wire.ParseHeader(fr.Payload)
					if err == nil {
						_, err = wire.ParseProperties(h.Block)
					}
					if err != nil {
						t.Errorf("the server sent % x: %v", fr.Payload, err)
						return
					}
				}
			}
		}()
		nc.SetWriteDeadline(time.Now().Add(amqptest.Patience))
		nc.Write(b)
		nc.Write(join(wire.AppendHeartbeat(nil), method(0, &wire.ConnectionClose{})))
		select {
		case <-done:
		case <-time.After(100 * time.Millisecond): // the bytes may end inside a frame, so the server is right to wait
		}
		nc.Close()
		<-done
		amqptest.Until(t, "the connection ends", func() bool { return len(bn.server.connections()) == 0 })
	})
}
