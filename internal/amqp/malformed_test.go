package amqp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

// method gives a method frame.
func method(ch uint16, m wire.Method) []byte { return wire.AppendMethod(nil, ch, m) }

// join gives what its parts give one after the other.
func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	openOne   = method(1, &wire.ChannelOpen{})
	publishQ  = method(1, &wire.BasicPublish{RoutingKey: "q"})
	noProps   = []byte{0, 0}
	plainAuth = &wire.ConnectionStartOk{ClientProperties: clientCaps, Mechanism: "PLAIN", Response: []byte("\x00guest\x00guest"), Locale: "en_US"}
)

func header(class, weight uint16, size uint64, block []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, class)
	b = binary.BigEndian.AppendUint16(b, weight)
	b = binary.BigEndian.AppendUint64(b, size)
	return wire.AppendFrame(nil, wire.FrameHeader, 1, append(b, block...))
}

func body(p string) []byte { return wire.AppendFrame(nil, wire.FrameBody, 1, []byte(p)) }

func deepTable(depth int) wire.Table {
	var t wire.Table
	for range depth {
		t = wire.Table(nil).AddTable("t", t)
	}
	return t
}

// malformed is what a broken or hostile client sends once its connection is open, and the code that ends the connection (or, below
// 500, the channel).
var malformed = []struct {
	name string
	in   []byte
	code wire.Code
	text string // a part of the reply
}{
	{"frame too large", []byte{1, 0, 1, 0, 3, 0x0d, 0x40}, 501, "type 1, all octets = <<>>: {frame_too_large,200000,131064}"},
	{"size of 4 GiB", []byte{3, 0, 1, 0xff, 0xff, 0xff, 0xff}, 501, "frame_too_large"},
	{"bad end octet", append(openOne[:len(openOne)-1:len(openOne)-1], 0), 501, "invalid_frame_end_marker,0"},
	{"heartbeat on a channel", wire.AppendFrame(nil, 8, 3, nil), 505, "type 8, all octets = <<>>"},
	{"heartbeat with payload", wire.AppendFrame(nil, 8, 0, []byte("x")), 501, "unknown_frame"},
	{"unknown frame type", []byte{9, 0, 0}, 501, "type 9, all octets = <<>>: unknown_frame"},
	{"empty method", wire.AppendFrame(nil, 1, 1, nil), 501, "cannot decode <<>>"},
	{"half an id", join(openOne, wire.AppendFrame(nil, 1, 1, []byte{0, 0})), 501, "cannot decode <<0,0>>"},
	{"publish on a closed channel", publishQ, 504, "expected 'channel.open'"},
	{"header on a closed channel", header(60, 0, 0, noProps), 504, "expected 'channel.open'"},
	{"channel opened twice", join(openOne, openOne), 504, "second 'channel.open' seen"},
	{"channel above channel_max", method(3000, &wire.ChannelOpen{}), 504, "above the negotiated channel_max"},
	{"unknown class", join(openOne, wire.AppendFrame(nil, 1, 1, []byte{0, 99, 0, 1})), 503, "unknown class 99"},
	{"unknown method", join(openOne, wire.AppendFrame(nil, 1, 1, []byte{0, 60, 0, 99})), 540, "unknown method 99 of class 60"},
	{"arguments cut short", join(openOne, wire.AppendFrame(nil, 1, 1, []byte{0, 50, 0, 10, 0})), 501, "cannot decode"},
	{"short string past the end", join(openOne, wire.AppendFrame(nil, 1, 1, []byte{0, 50, 0, 10, 0, 0, 200, 'q'})), 501, "cannot decode"},
	{"trailing bytes", join(openOne, wire.AppendFrame(nil, 1, 1, []byte{0, 90, 0, 10, 0})), 501, "1 bytes too many"},
	{"header without a method", join(openOne, header(60, 0, 0, noProps)), 505, "expected method frame, got non method frame instead"},
	{"body without a header", join(openOne, body("x")), 505, "expected method frame, got non method frame instead"},
	{"body right after publish", join(openOne, publishQ, body("x")), 505, "expected content header for class 60, got non content header frame instead"},
	{"method instead of a header", join(openOne, publishQ, publishQ), 505, "expected content header for class 60, got non content header frame instead"},
	{"method instead of a body", join(openOne, publishQ, header(60, 0, 5, noProps), publishQ), 505, "expected content body, got non content body frame instead"},
	{"header instead of a body", join(openOne, publishQ, header(60, 0, 5, noProps), header(60, 0, 5, noProps)), 505, "expected content body"},
	{"header of another class", join(openOne, publishQ, header(10, 0, 0, noProps)), 505, "expected content header for class 60, got one for class 10 instead"},
	{"weight 7", join(openOne, publishQ, header(60, 7, 0, noProps)), 505, "weight 7"},
	{"body of 2^64-1", join(openOne, publishQ, header(60, 0, 1<<64-1, noProps)), 406, "message size 18446744073709551615 is larger than configured max size 16777216"},
	{"body of 17 MiB", join(openOne, publishQ, header(60, 0, 17<<20, noProps)), 406, "message size 17825792 is larger"},
	{"body longer than announced", join(openOne, publishQ, header(60, 0, 3, noProps), body("four")), 501, "the body has 4 bytes, its header announced 3"},
	{"a thousand empty body frames", join(openOne, publishQ, header(60, 0, 3, noProps), bytes.Repeat(body(""), 1000)), 505, "empty body frames"},
	{"endless property flags", join(openOne, publishQ, header(60, 0, 0, bytes.Repeat([]byte{0xff}, 1000))), 502, "property flags"},
	{"flags without values", join(openOne, publishQ, header(60, 0, 0, []byte{0xff, 0xfc})), 502, "cannot decode the properties"},
	{"header cut short", join(openOne, publishQ, wire.AppendFrame(nil, 2, 1, []byte{0, 60, 0, 0})), 501, "cannot decode"},
	{"a name that is not UTF-8", join(openOne, method(1, &wire.QueueDeclare{Queue: "\xff\xfe"})), 501, "not UTF-8"},
	{"a key that is not UTF-8", join(openOne, method(1, &wire.BasicPublish{RoutingKey: "\xff"})), 501, "cannot decode"},
	{"a name with a control character", join(openOne, method(1, &wire.QueueDeclare{Queue: "a\x1fb"})), 406, "control character"},
	{"tables 3000 deep", join(openOne, publishQ, header(60, 0, 0, (&wire.Properties{Flags: wire.HasHeaders, Headers: deepTable(3000)}).Append(nil))), 501, "nested more than 32 deep"},
	{"arguments 40 deep", join(openOne, method(1, &wire.QueueDeclare{Queue: "q", Arguments: deepTable(40)})), 501, "nested more than 32 deep"},
	{"unknown field type", join(openOne, method(1, &wire.QueueDeclare{Queue: "q", Arguments: wire.Table("\x01kZ")})), 501, "unknown field type"},
	{"table longer than its frame", join(openOne, wire.AppendFrame(nil, 1, 1, []byte{0, 50, 0, 10, 0, 0, 1, 'q', 0, 0xff, 0xff, 0xff, 0xff})), 501, "cannot decode"},
	{"connection.open twice", method(0, &wire.ConnectionOpen{VirtualHost: "/"}), 504, "unexpected method in connection state running"},
	{"start-ok late", method(0, plainAuth), 504, "unexpected method in connection state running"},
	{"secure-ok out of order", method(0, &wire.ConnectionSecureOk{}), 504, "unexpected method in connection state running"},
	{"a queue method on channel 0", method(0, &wire.QueueDeclare{}), 504, "unexpected method in connection state running"},
	{"content on channel 0", wire.AppendFrame(nil, 3, 0, []byte("x")), 505, "expected method frame"},
	{"a server's method", join(openOne, method(1, &wire.QueueDeclareOk{})), 503, "not for servers"},
	{"a server's bare method", join(openOne, method(1, wire.Bare(wire.IDTxSelectOk))), 503, "not for servers"},
	{"100,000 keys in CC", join(openOne, publishQ, header(60, 0, 0, (&wire.Properties{Flags: wire.HasHeaders, Headers: manyKeys()}).Append(nil))), 406, "more than 1024 keys"},
	{"65,000 headers", join(openOne, publishQ, header(60, 0, 0, (&wire.Properties{Flags: wire.HasHeaders, Headers: bytes.Repeat([]byte("\x00V"), 60000)}).Append(nil))), 501, "more than 8192 fields"},
}

func manyKeys() wire.Table {
	var a wire.Array
	for range 8000 {
		a = a.AddString("k")
	}
	return wire.Table(nil).AddArray("CC", a)
}

func TestMalformedFrames(t *testing.T) {
	bn := start(t, Limits{})
	for _, tt := range malformed {
		t.Run(tt.name, func(t *testing.T) {
			p := dialRaw(t, bn.addr)
			p.login("guest", "/", wire.Tuning{ChannelMax: 2047, FrameMax: 131072})
			p.raw(tt.in)
			for {
				_, m := p.method()
				var got wire.Closing
				switch m := m.(type) {
				case *wire.ChannelOpenOk:
					continue
				case *wire.ConnectionClose:
					got = m.Closing
				case *wire.ChannelClose:
					got = m.Closing
				default:
					t.Fatalf("%T", m)
				}
				if got.ReplyCode != tt.code || !strings.Contains(got.ReplyText, tt.text) || !strings.HasPrefix(got.ReplyText, tt.code.String()+" - ") {
					t.Errorf("%d %s, want %d %s", got.ReplyCode, got.ReplyText, tt.code, tt.text)
				}
				return
			}
		})
	}
	bn.works(t)
}

// works checks that the server still serves others.
func (bn *bench) works(t *testing.T) {
	t.Helper()
	p := dialRaw(t, bn.addr)
	p.login("guest", "/", wire.Tuning{ChannelMax: 1, FrameMax: 4096})
	p.channel(1)
	p.send(1, &wire.QueueDeclare{Queue: "works"})
	want[*wire.QueueDeclareOk](p, 1)
	p.publish(1, &wire.BasicPublish{RoutingKey: "works"}, wire.Properties{}, "m")
	p.send(1, &wire.BasicGet{NoAck: true})
	want[*wire.BasicGetOk](p, 1)
	p.content()
	p.send(0, &wire.ConnectionClose{Closing: wire.Closing{ReplyCode: 200}})
	p.bare(0, wire.IDConnectionCloseOk)
	p.closed()
}

// pipe serves one end of a pipe in memory and gives the other.
func (bn *bench) pipe() net.Conn {
	ours, theirs := net.Pipe()
	bn.server.ServeConn(theirs)
	return ours
}

// opening is all that a client says up to connection.open.
func opening() []byte {
	return join([]byte(wire.ProtocolHeader), method(0, plainAuth),
		method(0, &wire.ConnectionTuneOk{Tuning: wire.Tuning{ChannelMax: 2047, FrameMax: 131072}}), method(0, &wire.ConnectionOpen{VirtualHost: "/"}))
}

// TestEveryCut sends what is malformed, and what is not, cut after each byte, and then hangs up. The server must end each
// connection by itself and be none the worse.
func TestEveryCut(t *testing.T) {
	bn := start(t, Limits{})
	good := join(openOne, method(1, &wire.QueueDeclare{Queue: "q", Arguments: args("x-max-length", 10)}),
		method(1, &wire.ConfirmSelect{}), publishQ, header(60, 0, 3, (&wire.Properties{Flags: wire.HasHeaders | wire.HasContentType, Headers: args("k", "v")}).Append(nil)), body("abc"),
		method(1, &wire.BasicConsume{Queue: "q"}), method(1, &wire.BasicAck{DeliveryTag: 1}), method(1, &wire.ChannelClose{}), method(0, &wire.ConnectionClose{}))
	streams := [][]byte{join(opening(), good)}
	for _, m := range malformed {
		if len(m.in) < 300 {
			streams = append(streams, join(opening(), m.in))
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, s := range streams {
		first := len(opening()) // the opening's own cuts once are enough
		if i == 0 {
			first = 0
		}
		for cut := first; cut <= len(s); cut++ {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				nc, err := net.Dial("tcp", bn.addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(patience))
				if _, err := nc.Write(s[:cut]); err != nil && !isReset(err) {
					t.Error(err)
				}
				nc.(*net.TCPConn).CloseWrite()
				if _, err := io.Copy(io.Discard, nc); err != nil && !isReset(err) {
					t.Errorf("stream %d cut at %d: the server does not let go: %v", i, cut, err)
				}
			})
		}
	}
	wg.Wait()
	until(t, "all connections end", func() bool { return len(bn.server.connections()) == 0 })
	bn.works(t)
}

// TestByteByByte sends a whole session in segments of one byte.
func TestByteByByte(t *testing.T) {
	bn := start(t, Limits{})
	p := dialRaw(t, bn.addr)
	p.nc.(*net.TCPConn).SetNoDelay(true)
	for _, b := range join(opening(), openOne, method(1, &wire.QueueDeclare{Queue: "q"}), publishQ, header(60, 0, 6, noProps), body("abc"), body("def"),
		method(1, &wire.BasicGet{Queue: "q"})) {
		p.raw([]byte{b})
	}
	want[*wire.ConnectionStart](p, 0)
	want[*wire.ConnectionTune](p, 0)
	want[*wire.ConnectionOpenOk](p, 0)
	want[*wire.ChannelOpenOk](p, 1)
	want[*wire.QueueDeclareOk](p, 1)
	want[*wire.BasicGetOk](p, 1)
	if _, b := p.content(); b != "abcdef" {
		t.Errorf("body %q", b)
	}
}

func TestContentsOfTwoChannelsInterleaved(t *testing.T) {
	bn := start(t, Limits{})
	p := bn.connect("guest")
	p.channel(1)
	p.channel(2)
	p.send(1, &wire.QueueDeclare{Queue: "q"})
	want[*wire.QueueDeclareOk](p, 1)
	on2 := func(b []byte) []byte {
		b = bytes.Clone(b)
		binary.BigEndian.PutUint16(b[1:], 2)
		return b
	}
	p.raw(join(publishQ, on2(publishQ), header(60, 0, 4, noProps), on2(header(60, 0, 4, noProps)), body("on"), on2(body("tw")), on2(body("o.")), body("e.")))
	for _, want1 := range []string{"two.", "one."} {
		p.send(1, &wire.BasicGet{Queue: "q", NoAck: true})
		want[*wire.BasicGetOk](p, 1)
		if _, b := p.content(); b != want1 {
			t.Errorf("%q, want %q", b, want1)
		}
	}
}

// TestHandshakeRefusals: what goes wrong before the connection is open.
func TestHandshakeRefusals(t *testing.T) {
	bn := start(t, Limits{})
	secret := auth.Secret("outsider")
	must[bool](t)(bn.auth.PutUser(context.Background(), "outsider", auth.UserSpec{Password: &secret}))
	const refused = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
	startOk := func(mechanism, response string, caps wire.Table) []byte {
		return method(0, &wire.ConnectionStartOk{ClientProperties: caps, Mechanism: mechanism, Response: []byte(response), Locale: "en_US"})
	}
	tuneOk := func(ch uint16, frame uint32) []byte {
		return method(0, &wire.ConnectionTuneOk{Tuning: wire.Tuning{ChannelMax: ch, FrameMax: frame}})
	}
	ok := startOk("PLAIN", "\x00guest\x00guest", clientCaps)
	amqplain := string(wire.Table(nil).AddString("LOGIN", "guest").AddString("PASSWORD", "guest"))
	open := func(v string) []byte { return method(0, &wire.ConnectionOpen{VirtualHost: v}) }
	for _, tt := range []struct {
		name string
		in   []byte
		code wire.Code // 0: the socket closes without a word
		text string
		id   wire.MethodID
	}{
		{"wrong password", startOk("PLAIN", "\x00guest\x00wrong", clientCaps), 403, refused, 0},
		{"unknown user", startOk("PLAIN", "\x00nobody\x00x", clientCaps), 403, refused, 0},
		{"no password", startOk("PLAIN", "\x00guest\x00", clientCaps), 403, refused, 0},
		{"no NULs", startOk("PLAIN", "guest", clientCaps), 403, refused, 0},
		{"one NUL", startOk("PLAIN", "\x00guest", clientCaps), 403, refused, 0},
		{"without the capability", startOk("PLAIN", "\x00guest\x00wrong", nil), 0, "", 0},
		{"unknown mechanism", startOk("EXTERNAL", "", clientCaps), 0, "", 0},
		{"amqplain without a password", startOk("AMQPLAIN", string(wire.Table(nil).AddString("LOGIN", "guest")), clientCaps), 403, strings.ReplaceAll(refused, "PLAIN", "AMQPLAIN"), 0},
		{"amqplain not a table", startOk("AMQPLAIN", "\xff", clientCaps), 403, strings.ReplaceAll(refused, "PLAIN", "AMQPLAIN"), 0},
		{"frame_max 100", join(ok, tuneOk(10, 100)), 530, "NOT_ALLOWED - negotiated frame_max = 100 is lower than the minimum allowed value (4096)", wire.IDConnectionTuneOk},
		{"frame_max 1 GiB", join(ok, tuneOk(10, 1<<30)), 530, "NOT_ALLOWED - negotiated frame_max = 1073741824 is higher than the maximum allowed value (131072)", wire.IDConnectionTuneOk},
		{"frame_max 0", join(ok, tuneOk(10, 0)), 530, "NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)", wire.IDConnectionTuneOk},
		{"channel_max 65535", join(ok, tuneOk(65535, 4096)), 530, "NOT_ALLOWED - negotiated channel_max = 65535 is higher than the maximum allowed value (2047)", wire.IDConnectionTuneOk},
		{"channel_max 0", join(ok, tuneOk(0, 4096)), 530, "NOT_ALLOWED - negotiated channel_max = 0 is higher than the maximum allowed value (2047)", wire.IDConnectionTuneOk},
		{"no such vhost", join(ok, tuneOk(1, 4096), open("nope")), 530, "NOT_ALLOWED - vhost nope not found", wire.IDConnectionOpen},
		{"the door's own vhost", join(ok, tuneOk(1, 4096), open(policy.InternalVhost)), 530, "NOT_ALLOWED - vhost amq.internal not found", wire.IDConnectionOpen},
		{"no rights in the vhost", join(startOk("AMQPLAIN", string(wire.Table(nil).AddString("LOGIN", "outsider").AddString("PASSWORD", "outsider")), clientCaps), tuneOk(1, 4096), open("/")), 530, "NOT_ALLOWED - access to vhost '/' refused for user 'outsider'", wire.IDConnectionOpen},
		{"a method before login", openOne, 504, "CHANNEL_ERROR - method on channel 1 before the connection is open", 0},
		{"the wrong method", open("/"), 503, "COMMAND_INVALID - method 40 of class 10 while *wire.ConnectionStartOk was expected", wire.IDConnectionOpen},
		{"a body before login", wire.AppendFrame(nil, 3, 0, []byte("x")), 505, "UNEXPECTED_FRAME - frame of type 3 before the connection is open", 0},
		{"a large frame before login", []byte{1, 0, 0, 0, 0, 0x10, 0}, 501, "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4096,4088}", 0},
		{"nested tables before login", startOk("PLAIN", "", deepTable(200)), 501, "nested more than 32 deep", 0},
		{"amqplain", join(startOk("AMQPLAIN", amqplain, clientCaps), tuneOk(1, 4096), open("/"), method(0, &wire.ConnectionClose{})), 200, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := dialRaw(t, bn.addr)
			p.raw(append([]byte(wire.ProtocolHeader), tt.in...))
			p.nc.(*net.TCPConn).CloseWrite()
			var got wire.Closing
			for {
				f, err := p.frame()
				if err != nil {
					break
				}
				m, err := wire.ParseMethod(f.Payload)
				if err != nil {
					t.Fatal(err)
				}
				if c, ok := m.(*wire.ConnectionClose); ok {
					got = c.Closing
				}
				if m.ID() == wire.IDConnectionCloseOk {
					got.ReplyCode = 200
				}
			}
			if got.ReplyCode != tt.code || !strings.Contains(got.ReplyText, tt.text) || got.Class != tt.id.Class() || got.Method != tt.id.Method() {
				t.Errorf("%+v, want %d %s", got, tt.code, tt.text)
			}
		})
	}
	for _, hello := range []string{"GET / HTTP/1.1\r\n\r\n", "AMQP\x00\x01\x00\x00", "AMQP\x01\x01\x08\x00", "AMQP\x00\x00\x09\x02", "\x16\x03\x01\x02\x00", "AMQPX"} {
		p := dialRaw(t, bn.addr)
		p.raw([]byte(hello))
		b, err := io.ReadAll(p.nc)
		if string(b) != wire.ProtocolHeader || err != nil && !isReset(err) {
			t.Errorf("%q was answered %q, %v", hello, b, err)
		}
	}
	bn.works(t)
}

func TestTooManyChannels(t *testing.T) {
	bn := start(t, Limits{})
	p := dialRaw(t, bn.addr)
	p.login("guest", "/", wire.Tuning{ChannelMax: 3, FrameMax: 4096})
	for ch := range uint16(3) {
		p.channel(ch + 1)
	}
	p.send(2, &wire.ChannelClose{})
	p.bare(2, wire.IDChannelCloseOk)
	p.channel(2) // the number is free again
	p.send(4, &wire.ChannelOpen{})
	if got := want[*wire.ConnectionClose](p, 0); got.ReplyCode != 504 {
		t.Errorf("%+v", got)
	}
}

// TestAPeerThatDoesNotRead: a hundred thousand declarations are sent and no reply is read. The server must stop
// reading, and hold little.
func TestAPeerThatDoesNotRead(t *testing.T) {
	bn := start(t, Limits{CloseTimeout: 50 * time.Millisecond})
	bn.user("remote", auth.AllPermissions) // a pipe is no loopback peer
	nc := bn.pipe()
	defer nc.Close()
	p := &peer{t: t, nc: nc}
	p.login("remote", "/", wire.Tuning{ChannelMax: 10, FrameMax: 4096})
	p.channel(1)
	p.send(1, &wire.QueueDeclare{Queue: "q"})
	want[*wire.QueueDeclareOk](p, 1)
	p.send(1, &wire.QueueDeclare{Queue: "a\x1fb", Passive: true}) // a full name is no way into another virtual host
	want[*wire.ChannelClose](p, 1)
	p.send(1, wire.Bare(wire.IDChannelCloseOk))
	p.channel(1)
	many := bytes.Repeat(method(1, &wire.QueueDeclare{Queue: "q", Passive: true}), 1000)
	sent := 0
	for range 500 {
		nc.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := nc.Write(many); err != nil {
			break
		}
		sent++
	}
	if sent == 500 {
		t.Error("the server took everything")
	}
	for _, c := range bn.server.connections() {
		c.mu.Lock()
		if len(c.out) > 2*maxOut {
			t.Errorf("%d bytes of replies wait", len(c.out))
		}
		c.mu.Unlock()
	}
	bn.works(t)
}
