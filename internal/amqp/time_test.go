package amqp

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/embedded"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
)

// inBubble runs a test with a server whose time, like the test's own, only passes when everything waits.
func inBubble(t *testing.T, limits Limits, f func(t *testing.T, bn *bench)) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		b := must[*embedded.Broker](t)(embedded.Memory(embedded.Options{}))
		a := must[*auth.Store](t)(auth.Open(ctx, b))
		s := must[*Server](t)(NewServer(ctx, Options{Broker: b, Auth: a, Limits: limits}))
		bn := &bench{t: t, broker: b, auth: a, server: s}
		bn.user("remote", auth.AllPermissions)
		f(t, bn)
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

// piped is a peer at the other end of a pipe, logged in.
func (bn *bench) piped(t *testing.T, tune wire.Tuning) *peer {
	p := &peer{t: t, nc: bn.pipe()}
	p.login("remote", "/", tune)
	return p
}

func TestTheServerSendsHeartbeatsAndMissesThem(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096, Heartbeat: 2})
		defer p.nc.Close()
		p.nc.SetDeadline(time.Time{})
		start, beats := time.Now(), 0
		for {
			b := make([]byte, 100)
			n, err := p.nc.Read(b)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(b[:n]) != string(wire.AppendHeartbeat(nil)) {
				t.Errorf("% x", b[:n])
			}
			beats++
		}
		if d := time.Since(start); d < 4*time.Second || d > 6*time.Second || beats < 4 || beats > 6 {
			t.Errorf("a silent peer was dropped after %v and %d heartbeats; want two to three intervals and one a second", d, beats)
		}
	})
}

func TestHeartbeatsKeepAConnection(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096, Heartbeat: 2})
		defer p.nc.Close()
		go io.Copy(io.Discard, p.nc)
		p.nc.SetDeadline(time.Time{})
		for range 50 {
			<-time.After(1500 * time.Millisecond)
			if _, err := p.nc.Write(wire.AppendHeartbeat(nil)); err != nil {
				t.Fatal(err)
			}
		}
		none := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		defer none.nc.Close()
		<-time.After(24 * time.Hour) // heartbeat 0 is none
		none.channel(1)
	})
}

func TestHandshakeTimesOut(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		for _, sent := range []string{"", "AMQP", wire.ProtocolHeader, wire.ProtocolHeader + string(method(0, &wire.ConnectionStartOk{
			ClientProperties: clientCaps, Mechanism: "PLAIN", Response: []byte("\x00remote\x00remote")}))} {
			nc := bn.pipe()
			start := time.Now()
			if sent != "" {
				go nc.Write([]byte(sent))
			}
			if _, err := io.Copy(io.Discard, nc); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != 10*time.Second {
				t.Errorf("after %q: closed after %v", sent, d)
			}
			nc.Close()
		}
	})
}

func TestAcknowledgementTimesOut(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 3, FrameMax: 4096})
		defer p.nc.Close()
		p.channel(1)
		p.send(1, declare("q"))
		want[*wire.QueueDeclareOk](p, 1)
		p.send(1, declare("own", "x-consumer-timeout", 60000))
		want[*wire.QueueDeclareOk](p, 1)
		bn.policy("patience", "^policed$", 0, map[string]any{"consumer-timeout": 45000})
		p.send(1, declare("policed"))
		want[*wire.QueueDeclareOk](p, 1)
		late := func(queue, text string, after time.Duration) {
			t.Helper()
			p.publish(1, &wire.BasicPublish{RoutingKey: queue}, wire.Properties{}, "m")
			p.send(1, &wire.BasicGet{Queue: queue})
			want[*wire.BasicGetOk](p, 1)
			p.content()
			<-time.After(after - 2*time.Second)
			p.send(1, &wire.BasicQos{PrefetchCount: 1})
			p.bare(1, wire.IDBasicQosOk)
			<-time.After(4 * time.Second)
			if got := want[*wire.ChannelClose](p, 1).Closing; got.ReplyCode != 406 || got.ReplyText != text {
				t.Errorf("%+v", got)
			}
			p.send(1, wire.Bare(wire.IDChannelCloseOk))
			p.channel(1)
			p.send(1, &wire.BasicGet{Queue: queue, NoAck: true})
			if got := want[*wire.BasicGetOk](p, 1); !got.Redelivered {
				t.Error("not given back")
			}
			p.content()
		}
		const text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: %s ms. This timeout value can be configured, see consumers doc guide to learn more"
		late("q", replaced(text, "1800000"), 30*time.Minute)
		late("own", replaced(text, "60000"), time.Minute)
		late("policed", replaced(text, "45000"), 45*time.Second)
	})
}

// TestTheClockIsNotWhatTimesOut: a wall clock that is set makes no delivery late and no queue unused; what passes does.
func TestTheClockIsNotWhatTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		b := must[*embedded.Broker](t)(embedded.Memory(embedded.Options{}))
		a := must[*auth.Store](t)(auth.Open(ctx, b))
		c := clock.NewManual(time.Unix(1_800_000_000, 0))
		s := must[*Server](t)(NewServer(ctx, Options{Broker: b, Auth: a, Clock: c}))
		bn := &bench{t: t, broker: b, auth: a, server: s}
		bn.user("remote", auth.AllPermissions)
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		p.channel(1)
		p.send(1, declare("q"))
		want[*wire.QueueDeclareOk](p, 1)
		p.send(1, declare("unused", "x-expires", 600_000))
		want[*wire.QueueDeclareOk](p, 1)
		p.publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, "m")
		p.send(1, &wire.BasicGet{Queue: "q"})
		want[*wire.BasicGetOk](p, 1)
		p.content()
		pass := func(d time.Duration) {
			for end := c.Passed() + d; c.Passed() < end; { // the janitor looks each time
				c.Advance(janitorPause)
				synctest.Wait()
			}
		}
		for _, to := range []time.Time{c.Now().AddDate(1, 0, 0), time.Unix(0, 0), time.Unix(1<<31, 0)} {
			c.Set(to)
			pass(2 * time.Second)
		}
		p.send(1, &wire.QueueDeclare{Queue: "unused", Passive: true}) // which uses it
		want[*wire.QueueDeclareOk](p, 1)
		if _, err := b.Queue(ctx, "unused"); err != nil {
			t.Fatal(err)
		}
		c.Set(time.Unix(0, 0))
		pass(10*time.Minute + time.Second)
		if _, err := b.Queue(ctx, "unused"); surgetank.CodeOf(err) != surgetank.CodeNotFound {
			t.Errorf("a queue that nobody used for its ten minutes: %v", err)
		}
		pass(20 * time.Minute)
		if got := want[*wire.ChannelClose](p, 1).Closing; got.ReplyCode != 406 {
			t.Errorf("a delivery that nobody acknowledged for half an hour: %+v", got)
		}
		p.nc.Close()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

func replaced(text, with string) string {
	for i := range text {
		if text[i] == '%' {
			return text[:i] + with + text[i+2:]
		}
	}
	return text
}

func TestQueueExpiry(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 3, FrameMax: 4096})
		defer p.nc.Close()
		p.channel(1)
		there := func() bool {
			_, err := bn.broker.Queue(context.Background(), "q")
			return surgetank.CodeOf(err) != surgetank.CodeNotFound
		}
		p.send(1, declare("q", "x-expires", 10000))
		want[*wire.QueueDeclareOk](p, 1)
		for _, use := range []wire.Method{&wire.QueueDeclare{Queue: "q", Passive: true}, &wire.BasicGet{Queue: "q"}, declare("q", "x-expires", 10000)} {
			<-time.After(9 * time.Second)
			p.send(1, use)
			p.method()
		}
		p.send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: "t"})
		want[*wire.BasicConsumeOk](p, 1)
		<-time.After(time.Hour)
		if !there() {
			t.Fatal("the queue expired while it was used")
		}
		p.send(1, &wire.BasicCancel{ConsumerTag: "t"})
		want[*wire.BasicCancelOk](p, 1)
		<-time.After(9 * time.Second)
		if !there() {
			t.Fatal("the queue expired too early after its consumer went")
		}
		<-time.After(2 * time.Second)
		if there() {
			t.Error("the queue did not expire")
		}
	})
}

func TestBlockedPublishers(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		tune := wire.Tuning{ChannelMax: 3, FrameMax: 4096}
		publisher, consumer := bn.piped(t, tune), bn.piped(t, tune)
		defer publisher.nc.Close()
		defer consumer.nc.Close()
		publisher.channel(1)
		consumer.channel(1)
		publisher.send(1, declare("q"))
		want[*wire.QueueDeclareOk](publisher, 1)
		bn.server.SetAlarm("low on memory", true)
		bn.server.SetAlarm("low on disk", true)
		bn.server.SetAlarm("low on disk", true)
		publisher.send(1, &wire.ConfirmSelect{}) // a connection that has not published is not held
		publisher.bare(1, wire.IDConfirmSelectOk)
		publisher.publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, "m")
		if got := want[*wire.ConnectionBlocked](publisher, 0); got.Reason != "low on disk & low on memory" {
			t.Errorf("%q", got.Reason)
		}
		go publisher.send(1, &wire.QueueDeclare{Queue: "later"}) // waits: the connection is not read
		synctest.Wait()
		consumer.send(1, &wire.BasicConsume{Queue: "q", NoAck: true})
		want[*wire.BasicConsumeOk](consumer, 1)
		bn.server.SetAlarm("low on memory", false)
		synctest.Wait()
		if info := must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), "q")); info.Published != 0 {
			t.Error("published while there is an alarm")
		}
		bn.server.SetAlarm("low on disk", false)
		publisher.bare(0, wire.IDConnectionUnblocked)
		for range 2 { // in either order
			switch _, m := publisher.method(); m.(type) {
			case *wire.BasicAck, *wire.QueueDeclareOk:
			default:
				t.Errorf("%T", m)
			}
		}
		want[*wire.BasicDeliver](consumer, 1)
		consumer.content()
		// A held connection can still be closed by the server.
		bn.server.SetAlarm("low on disk", true)
		publisher.publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, "m")
		want[*wire.ConnectionBlocked](publisher, 0)
		for _, c := range bn.server.connections() {
			c.kick(wire.Errorf(wire.CodeConnectionForced, "test"))
		}
		_, m := publisher.method()
		if n, ok := m.(*wire.BasicNack); ok { // of the publish that was held
			_, m = publisher.method()
			_ = n
		}
		if c, ok := m.(*wire.ConnectionClose); !ok || c.ReplyCode != 320 {
			t.Errorf("%+v", m)
		}
	})
}

// TestAConsumerThatDoesNotRead holds leases and little else, and does not disturb the others.
func TestAConsumerThatDoesNotRead(t *testing.T) {
	inBubble(t, Limits{DeliverWindow: 100}, func(t *testing.T, bn *bench) {
		ctx := context.Background()
		tune := wire.Tuning{ChannelMax: 3, FrameMax: 4096}
		p := bn.piped(t, tune)
		defer p.nc.Close()
		p.channel(1)
		p.send(1, declare("q"))
		want[*wire.QueueDeclareOk](p, 1)
		p.send(1, &wire.BasicConsume{Queue: "q"})
		want[*wire.BasicConsumeOk](p, 1)
		msgs := make([]surgetank.Publishing, 1000)
		for i := range msgs {
			msgs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 10000)}}
		}
		must[[]surgetank.PublishResult](t)(bn.broker.Publish(ctx, msgs))
		synctest.Wait()
		if info := must[surgetank.QueueInfo](t)(bn.broker.Queue(ctx, "q")); info.Leased > 200 {
			t.Errorf("%d messages are held for a consumer that reads nothing", info.Leased)
		}
		other := bn.piped(t, tune)
		defer other.nc.Close()
		other.channel(1)
		other.send(1, &wire.BasicGet{Queue: "q"})
		want[*wire.BasicGetOk](other, 1)
		other.content()
		for range 300 { // it reads on after all
			want[*wire.BasicDeliver](p, 1)
			p.content()
		}
	})
}

// TestUnackedIsBounded: a consumer without prefetch that never acknowledges gets only so much.
func TestUnackedIsBounded(t *testing.T) {
	inBubble(t, Limits{DeliverWindow: 10, MaxUnacked: 50}, func(t *testing.T, bn *bench) {
		ctx := context.Background()
		p := bn.piped(t, wire.Tuning{ChannelMax: 3, FrameMax: 4096})
		defer p.nc.Close()
		p.channel(1)
		p.send(1, declare("q"))
		want[*wire.QueueDeclareOk](p, 1)
		msgs := make([]surgetank.Publishing, 200)
		for i := range msgs {
			msgs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("m")}}
		}
		must[[]surgetank.PublishResult](t)(bn.broker.Publish(ctx, msgs))
		p.send(1, &wire.BasicConsume{Queue: "q"})
		want[*wire.BasicConsumeOk](p, 1)
		got := uint64(0)
		read := func() {
			for {
				p.nc.SetReadDeadline(time.Now().Add(time.Second))
				f, n, err := wire.NextFrame(p.buf, 4096)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					b := make([]byte, 4096)
					n, err := p.nc.Read(b)
					if err != nil {
						return
					}
					p.buf = append(p.buf, b[:n]...)
					continue
				}
				p.buf = p.buf[n:]
				if f.Type == wire.FrameBody {
					got++
				}
			}
		}
		read()
		if got < 50 || got > 60 {
			t.Errorf("%d deliveries without an acknowledgement; at most about 50 are allowed", got)
		}
		p.send(1, &wire.BasicAck{DeliveryTag: got, Multiple: true})
		before := got
		read()
		if got == before {
			t.Error("nothing more came after the acknowledgement")
		}
	})
}

// TestTooManyStrangers fills the places of those who have not logged in. Whoever comes then is let in and can log in, and the stranger
// that has waited longest is closed, of the address that has the most. Who has logged in is never touched.
func TestTooManyStrangers(t *testing.T) {
	inBubble(t, Limits{MaxStrangers: 5, MaxStrangersPerPeer: 3}, func(t *testing.T, bn *bench) {
		from := func(host string) net.Conn {
			ours, theirs := net.Pipe()
			bn.server.ServeConn(addressed{theirs, &net.TCPAddr{IP: net.ParseIP(host), Port: 4000}})
			return ours
		}
		login := func(host string) *peer {
			p := &peer{t: t, nc: from(host)}
			p.login("remote", "/", wire.Tuning{ChannelMax: 1, FrameMax: 4096})
			return p
		}
		closed := func(nc net.Conn) bool {
			synctest.Wait()
			nc.SetReadDeadline(time.Now().Add(time.Nanosecond))
			_, err := nc.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		const many, few, other = "192.0.2.1", "192.0.2.2", "2001:db8::1"
		var open []net.Conn // many, many, many, few, few
		for _, host := range []string{many, many, many, few, few} {
			open = append(open, from(host))
		}
		open[1].Write([]byte("AMQP")) // what it sends without logging in does not help it
		known := login(other)
		for i, nc := range open {
			if closed(nc) != (i == 0) {
				t.Errorf("when all five places were taken and a sixth came: stranger %d closed: %v", i, i != 0)
			}
		}
		open = append(open[1:], from(many)) // five places are taken again
		for range 20 {                      // an address is at its limit, and goes on
			open = append(open, from(many))
			synctest.Wait() // who was put out is gone
		}
		if closed(open[2]) || closed(open[3]) {
			t.Error("an address put out the strangers of another that has fewer")
		}
		for i, nc := range open[4:] {
			if last := i >= len(open)-4-3; closed(nc) == last {
				t.Errorf("of 21 from one address that has three places number %d is closed: %v", i, last)
			}
		}
		p := login("2001:db8:0:0:9::1") // an IPv6 network is one address
		p.nc.Close()
		known.channel(1)
		known.nc.Close()
		for _, nc := range open {
			nc.Close()
		}
		synctest.Wait()
		open = nil
		for range 4 { // an address has its own limit, where all have room
			open = append(open, from(many))
		}
		for i, nc := range open {
			if closed(nc) != (i == 0) {
				t.Errorf("of four from one address that has three places number %d is closed: %v", i, i != 0)
			}
			nc.Close()
		}
		synctest.Wait()
		guests, leaving := bn.server.lobby.Count()
		bn.server.mu.Lock()
		defer bn.server.mu.Unlock()
		if guests != 0 || leaving != 0 || len(bn.server.conns) != 0 {
			t.Errorf("%d strangers, %d put out and %d connections remain", guests, leaving, len(bn.server.conns))
		}
	})
}
