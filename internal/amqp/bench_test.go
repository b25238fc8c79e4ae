//go:build unix

package amqp

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// cpu returns the processor time of this process. Client and server run in it together.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, before time.Duration) {
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// frames reads frames until f returns false.
func frames(b *testing.B, nc net.Conn, f func(wire.Frame) bool) {
	nc.SetReadDeadline(time.Now().Add(time.Minute))
	buf, have := make([]byte, 256<<10), 0
	for {
		n, err := nc.Read(buf[have:])
		if err != nil && n == 0 {
			b.Error(err)
			return
		}
		have += n
		at := 0
		for {
			fr, n, err := wire.NextFrame(buf[at:have], 131072)
			if err != nil {
				b.Error(err)
				return
			}
			if n == 0 {
				break
			}
			at += n
			if f(fr) {
				return
			}
		}
		have = copy(buf, buf[at:have])
	}
}

// message returns the frames of one publish with a body of 1 KiB.
func message() []byte {
	p := wire.Properties{Flags: wire.HasContentType | wire.HasDeliveryMode, ContentType: []byte("application/octet-stream"), DeliveryMode: 2}
	m := wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: "q"})
	m = wire.AppendHeader(m, 1, 1024, p.Append(nil))
	return wire.AppendBody(m, 1, bytes.Repeat([]byte("x"), 1024), 131072)
}

// BenchmarkPublish publishes 1 KiB messages with confirms to a broker in memory. Up to 1,000 of
// them are unconfirmed at a time.
func BenchmarkPublish(b *testing.B) {
	bn := start(b, Limits{})
	p := bn.connect("guest")
	p.Channel(1)
	p.Send(1, amqptest.Declare("q", "x-max-length", 1000))
	amqptest.Want[*wire.QueueDeclareOk](p, 1)
	p.Send(1, &wire.ConfirmSelect{})
	p.Bare(1, wire.IDConfirmSelectOk)
	p.Conn.SetDeadline(time.Time{})
	batch := bytes.Repeat(message(), 100)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	window := make(chan struct{}, 10)
	go func() {
		for i := 0; i < b.N; i += 100 {
			window <- struct{}{}
			p.Conn.Write(batch)
		}
	}()
	rounds := uint64((b.N + 99) / 100)
	freed := uint64(0)
	frames(b, p.Conn, func(f wire.Frame) bool {
		if id, _ := wire.MethodIDOf(f.Payload); id != wire.IDBasicAck {
			return false
		}
		tag := binary.BigEndian.Uint64(f.Payload[4:])
		for ; freed < tag/100; freed++ {
			<-window
		}
		return tag == rounds*100
	})
	reportCPU(b, before)
}

// BenchmarkEndToEnd publishes the same messages, and another connection receives and acks them.
func BenchmarkEndToEnd(b *testing.B) {
	bn := start(b, Limits{})
	p, c := bn.connect("guest"), bn.connect("guest")
	p.Channel(1)
	c.Channel(1)
	p.Send(1, amqptest.Declare("q"))
	amqptest.Want[*wire.QueueDeclareOk](p, 1)
	p.Send(1, &wire.ConfirmSelect{})
	p.Bare(1, wire.IDConfirmSelectOk)
	c.Send(1, &wire.BasicQos{PrefetchCount: 500})
	c.Bare(1, wire.IDBasicQosOk)
	c.Send(1, &wire.BasicConsume{Queue: "q"})
	amqptest.Want[*wire.BasicConsumeOk](c, 1)
	p.Conn.SetDeadline(time.Time{})
	c.Conn.SetDeadline(time.Time{})
	batch := bytes.Repeat(message(), 100)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	window := make(chan struct{}, 10)
	go func() {
		for i := 0; i < b.N; i += 100 {
			window <- struct{}{}
			p.Conn.Write(batch)
		}
	}()
	go io.Copy(io.Discard, p.Conn)
	total := (b.N + 99) / 100 * 100
	got := 0
	var acks []byte
	frames(b, c.Conn, func(f wire.Frame) bool {
		if f.Type == wire.FrameBody {
			got++
			acks = wire.AppendAck(acks, 1, uint64(got), false)
			if len(acks) >= 50*21 {
				c.Conn.Write(acks)
				acks = acks[:0]
			}
			if got%100 == 0 {
				<-window
			}
		}
		return got == total
	})
	reportCPU(b, before)
}
