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
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door/doortest"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
)

// inBubble runs a test with a server in a synctest bubble. Time passes only while every goroutine
// waits.
func inBubble(t *testing.T, limits Limits, f func(t *testing.T, bn *bench)) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		b := amqptest.Must[*embedded.Broker](t)(embedded.Memory(embedded.Options{Shards: shardstest.N}))
		a := amqptest.Must[*auth.Store](t)(auth.Open(ctx, b))
		s := amqptest.Must[*Server](t)(NewServer(ctx, Options{Broker: doortest.Of(t, b), Auth: a, Limits: limits}))
		bn := &bench{t: t, broker: doortest.Of(t, b), auth: a, server: s}
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

// piped returns a peer at the other end of a pipe, logged in.
func (bn *bench) piped(t *testing.T, tune wire.Tuning) *amqptest.Peer {
	p := &amqptest.Peer{T: t, Conn: bn.pipe()}
	p.Login("remote", "/", tune)
	return p
}

func TestTheServerSendsHeartbeatsAndMissesThem(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096, Heartbeat: 2})
		defer p.Conn.Close()
		p.Conn.SetDeadline(time.Time{})
		start, beats := time.Now(), 0
		for {
			b := make([]byte, 100)
			n, err := p.Conn.Read(b)
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
		defer p.Conn.Close()
		go io.Copy(io.Discard, p.Conn)
		p.Conn.SetDeadline(time.Time{})
		for range 50 {
			<-time.After(1500 * time.Millisecond)
			if _, err := p.Conn.Write(wire.AppendHeartbeat(nil)); err != nil {
				t.Fatal(err)
			}
		}
		none := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		defer none.Conn.Close()
		<-time.After(24 * time.Hour) // heartbeat 0 means no heartbeats
		none.Channel(1)
	})
}

func TestHandshakeTimesOut(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, bn *bench) {
		for _, sent := range []string{"", "AMQP", wire.ProtocolHeader, wire.ProtocolHeader + string(method(0, &wire.ConnectionStartOk{
			ClientProperties: amqptest.ClientCaps, Mechanism: "PLAIN", Response: []byte("\x00remote\x00remote")}))} {
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
		defer p.Conn.Close()
		p.Channel(1)
		p.Send(1, amqptest.Declare("q"))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		p.Send(1, amqptest.Declare("own", "x-consumer-timeout", 60000))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		bn.policy("patience", "^policed$", 0, map[string]any{"consumer-timeout": 45000})
		p.Send(1, amqptest.Declare("policed"))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		late := func(queue, text string, after time.Duration) {
			t.Helper()
			p.Publish(1, &wire.BasicPublish{RoutingKey: queue}, wire.Properties{}, "m")
			p.Send(1, &wire.BasicGet{Queue: queue})
			amqptest.Want[*wire.BasicGetOk](p, 1)
			p.Content()
			<-time.After(after - 2*time.Second)
			p.Send(1, &wire.BasicQos{PrefetchCount: 1})
			p.Bare(1, wire.IDBasicQosOk)
			<-time.After(4 * time.Second)
			if got := amqptest.Want[*wire.ChannelClose](p, 1).Closing; got.ReplyCode != 406 || got.ReplyText != text {
				t.Errorf("%+v", got)
			}
			p.Send(1, wire.Bare(wire.IDChannelCloseOk))
			p.Channel(1)
			p.Send(1, &wire.BasicGet{Queue: queue, NoAck: true})
			if got := amqptest.Want[*wire.BasicGetOk](p, 1); !got.Redelivered {
				t.Error("not returned to the queue")
			}
			p.Content()
		}
		const text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: %s ms. This timeout value can be configured, see consumers doc guide to learn more"
		late("q", replaced(text, "1800000"), 30*time.Minute)
		late("own", replaced(text, "60000"), time.Minute)
		late("policed", replaced(text, "45000"), 45*time.Second)
	})
}

// TestTheClockIsNotWhatTimesOut: setting the wall clock makes no delivery late and no queue unused.
// Only passed time does.
func TestTheClockIsNotWhatTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		b := amqptest.Must[*embedded.Broker](t)(embedded.Memory(embedded.Options{Shards: shardstest.N}))
		a := amqptest.Must[*auth.Store](t)(auth.Open(ctx, b))
		c := clock.NewManual(time.Unix(1_800_000_000, 0))
		s := amqptest.Must[*Server](t)(NewServer(ctx, Options{Broker: doortest.Of(t, b), Auth: a, Clock: c}))
		bn := &bench{t: t, broker: doortest.Of(t, b), auth: a, server: s}
		bn.user("remote", auth.AllPermissions)
		p := bn.piped(t, wire.Tuning{ChannelMax: 1, FrameMax: 4096})
		p.Channel(1)
		p.Send(1, amqptest.Declare("q"))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		p.Send(1, amqptest.Declare("unused", "x-expires", 600_000))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		p.Publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, "m")
		p.Send(1, &wire.BasicGet{Queue: "q"})
		amqptest.Want[*wire.BasicGetOk](p, 1)
		p.Content()
		pass := func(d time.Duration) {
			for end := c.Passed() + d; c.Passed() < end; { // the janitor runs after each step
				c.Advance(janitorPause)
				synctest.Wait()
			}
		}
		for _, to := range []time.Time{c.Now().AddDate(1, 0, 0), time.Unix(0, 0), time.Unix(1<<31, 0)} {
			c.Set(to)
			pass(2 * time.Second)
		}
		p.Send(1, &wire.QueueDeclare{Queue: "unused", Passive: true}) // the declaration uses the queue
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		if _, err := b.Queue(ctx, "unused"); err != nil {
			t.Fatal(err)
		}
		c.Set(time.Unix(0, 0))
		pass(10*time.Minute + time.Second)
		if _, err := b.Queue(ctx, "unused"); surgetank.CodeOf(err) != surgetank.CodeNotFound {
			t.Errorf("a queue that nobody used for its ten minutes: %v", err)
		}
		pass(20 * time.Minute)
		if got := amqptest.Want[*wire.ChannelClose](p, 1).Closing; got.ReplyCode != 406 {
			t.Errorf("a delivery that nobody acknowledged for half an hour: %+v", got)
		}
		p.Conn.Close()
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
		defer p.Conn.Close()
		p.Channel(1)
		there := func() bool {
			_, err := bn.broker.Queue(context.Background(), "q")
			return surgetank.CodeOf(err) != surgetank.CodeNotFound
		}
		p.Send(1, amqptest.Declare("q", "x-expires", 10000))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		for _, use := range []wire.Method{&wire.QueueDeclare{Queue: "q", Passive: true}, &wire.BasicGet{Queue: "q"}, amqptest.Declare("q", "x-expires", 10000)} {
			<-time.After(9 * time.Second)
			p.Send(1, use)
			p.Method()
		}
		p.Send(1, &wire.BasicConsume{Queue: "q", ConsumerTag: "t"})
		amqptest.Want[*wire.BasicConsumeOk](p, 1)
		<-time.After(time.Hour)
		if !there() {
			t.Fatal("the queue expired while it was used")
		}
		p.Send(1, &wire.BasicCancel{ConsumerTag: "t"})
		amqptest.Want[*wire.BasicCancelOk](p, 1)
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
		defer publisher.Conn.Close()
		defer consumer.Conn.Close()
		publisher.Channel(1)
		consumer.Channel(1)
		publisher.Send(1, amqptest.Declare("q"))
		amqptest.Want[*wire.QueueDeclareOk](publisher, 1)
		bn.server.SetAlarm("low on memory", true)
		bn.server.SetAlarm("low on disk", true)
		bn.server.SetAlarm("low on disk", true)
		publisher.Send(1, &wire.ConfirmSelect{}) // a connection that has not published is not blocked
		publisher.Bare(1, wire.IDConfirmSelectOk)
		publisher.Publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, "m")
		if got := amqptest.Want[*wire.ConnectionBlocked](publisher, 0); got.Reason != "low on disk & low on memory" {
			t.Errorf("%q", got.Reason)
		}
		// In the background: the server does not read from the blocked connection.
		go publisher.Send(1, &wire.QueueDeclare{Queue: "later"})
		synctest.Wait()
		consumer.Send(1, &wire.BasicConsume{Queue: "q", NoAck: true})
		amqptest.Want[*wire.BasicConsumeOk](consumer, 1)
		bn.server.SetAlarm("low on memory", false)
		synctest.Wait()
		if info := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(context.Background(), "q")); info.Published != 0 {
			t.Error("published while there is an alarm")
		}
		bn.server.SetAlarm("low on disk", false)
		publisher.Bare(0, wire.IDConnectionUnblocked)
		for range 2 { // the two answers can come in either order
			switch _, m := publisher.Method(); m.(type) {
			case *wire.BasicAck, *wire.QueueDeclareOk:
			default:
				t.Errorf("%T", m)
			}
		}
		amqptest.Want[*wire.BasicDeliver](consumer, 1)
		consumer.Content()
		// The server can still close a blocked connection.
		bn.server.SetAlarm("low on disk", true)
		publisher.Publish(1, &wire.BasicPublish{RoutingKey: "q"}, wire.Properties{}, "m")
		amqptest.Want[*wire.ConnectionBlocked](publisher, 0)
		for _, c := range bn.server.connections() {
			c.Kick(wire.Errorf(wire.CodeConnectionForced, "test"))
		}
		_, m := publisher.Method()
		if n, ok := m.(*wire.BasicNack); ok { // a nack for the publish that the server had not read
			_, m = publisher.Method()
			_ = n
		}
		if c, ok := m.(*wire.ConnectionClose); !ok || c.ReplyCode != 320 {
			t.Errorf("%+v", m)
		}
	})
}

// TestAConsumerThatDoesNotRead: such a consumer keeps its leases, uses little memory, and does not
// disturb other clients.
func TestAConsumerThatDoesNotRead(t *testing.T) {
	inBubble(t, Limits{DeliverWindow: 100}, func(t *testing.T, bn *bench) {
		ctx := context.Background()
		tune := wire.Tuning{ChannelMax: 3, FrameMax: 4096}
		p := bn.piped(t, tune)
		defer p.Conn.Close()
		p.Channel(1)
		p.Send(1, amqptest.Declare("q"))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		p.Send(1, &wire.BasicConsume{Queue: "q"})
		amqptest.Want[*wire.BasicConsumeOk](p, 1)
		msgs := make([]surgetank.Publishing, 1000)
		for i := range msgs {
			msgs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: make([]byte, 10000)}}
		}
		amqptest.Must[[]surgetank.PublishResult](t)(bn.broker.Publish(ctx, msgs))
		synctest.Wait()
		if info := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(ctx, "q")); info.Leased > 200 {
			t.Errorf("%d messages are held for a consumer that reads nothing", info.Leased)
		}
		other := bn.piped(t, tune)
		defer other.Conn.Close()
		other.Channel(1)
		other.Send(1, &wire.BasicGet{Queue: "q"})
		amqptest.Want[*wire.BasicGetOk](other, 1)
		other.Content()
		for range 300 { // the consumer reads again
			amqptest.Want[*wire.BasicDeliver](p, 1)
			p.Content()
		}
	})
}

// TestUnackedIsBounded: a consumer without prefetch that never acks gets a limited number of
// messages.
func TestUnackedIsBounded(t *testing.T) {
	inBubble(t, Limits{DeliverWindow: 10, MaxUnacked: 50}, func(t *testing.T, bn *bench) {
		ctx := context.Background()
		p := bn.piped(t, wire.Tuning{ChannelMax: 3, FrameMax: 4096})
		defer p.Conn.Close()
		p.Channel(1)
		p.Send(1, amqptest.Declare("q"))
		amqptest.Want[*wire.QueueDeclareOk](p, 1)
		msgs := make([]surgetank.Publishing, 200)
		for i := range msgs {
			msgs[i] = surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("m")}}
		}
		amqptest.Must[[]surgetank.PublishResult](t)(bn.broker.Publish(ctx, msgs))
		p.Send(1, &wire.BasicConsume{Queue: "q"})
		amqptest.Want[*wire.BasicConsumeOk](p, 1)
		got := uint64(0)
		read := func() {
			for {
				p.Conn.SetReadDeadline(time.Now().Add(time.Second))
				f, n, err := wire.NextFrame(p.Buf, 4096)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					b := make([]byte, 4096)
					n, err := p.Conn.Read(b)
					if err != nil {
						return
					}
					p.Buf = append(p.Buf, b[:n]...)
					continue
				}
				p.Buf = p.Buf[n:]
				if f.Type == wire.FrameBody {
					got++
				}
			}
		}
		read()
		if got < 50 || got > 60 {
			t.Errorf("%d deliveries without an acknowledgement; at most about 50 are allowed", got)
		}
		p.Send(1, &wire.BasicAck{DeliveryTag: got, Multiple: true})
		before := got
		read()
		if got == before {
			t.Error("nothing more came after the acknowledgement")
		}
	})
}

// TestTooManyPeersBeforeLogin fills the lobby, the list of peers before login. A further peer is
// accepted and can log in. To make room, the server looks at the address with the most peers in the
// lobby. It closes the one that has waited longest. Logged-in connections are never closed for
// this.
func TestTooManyPeersBeforeLogin(t *testing.T) {
	inBubble(t, Limits{MaxBeforeLogin: 5, MaxBeforeLoginPerPeer: 3}, func(t *testing.T, bn *bench) {
		from := func(host string) net.Conn {
			ours, theirs := net.Pipe()
			bn.server.ServeConn(addressed{theirs, &net.TCPAddr{IP: net.ParseIP(host), Port: 4000}})
			return ours
		}
		login := func(host string) *amqptest.Peer {
			p := &amqptest.Peer{T: t, Conn: from(host)}
			p.Login("remote", "/", wire.Tuning{ChannelMax: 1, FrameMax: 4096})
			return p
		}
		closed := func(nc net.Conn) bool {
			synctest.Wait()
			nc.SetReadDeadline(time.Now().Add(time.Nanosecond))
			_, err := nc.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		const many, few, other = "192.0.2.1", "192.0.2.2", "2001:db8::1"
		var open []net.Conn // from the addresses many, many, many, few, few
		for _, host := range []string{many, many, many, few, few} {
			open = append(open, from(host))
		}
		open[1].Write([]byte("AMQP")) // bytes without a login do not help it
		known := login(other)
		for i, nc := range open {
			if closed(nc) != (i == 0) {
				t.Errorf("after a sixth connection reached the limit of five: connection %d closed: %v", i, i != 0)
			}
		}
		open = append(open[1:], from(many)) // the lobby has five entries again
		for range 20 {                      // further peers of an address at its limit are accepted
			open = append(open, from(many))
			synctest.Wait() // the peer that was closed to make room is gone
		}
		if closed(open[2]) || closed(open[3]) {
			t.Error("an address closed the connections of another address with fewer")
		}
		for i, nc := range open[4:] {
			if last := i >= len(open)-4-3; closed(nc) == last {
				t.Errorf("of 21 from one address that has three places number %d is closed: %v", i, last)
			}
		}
		p := login("2001:db8:0:0:9::1") // all addresses of an IPv6 network count as one
		p.Conn.Close()
		known.Channel(1)
		known.Conn.Close()
		for _, nc := range open {
			nc.Close()
		}
		synctest.Wait()
		open = nil
		for range 4 { // the limit of an address applies even while the lobby has room
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
			t.Errorf("%d peers before login, %d closed peers and %d connections remain", guests, leaving, len(bn.server.conns))
		}
	})
}
