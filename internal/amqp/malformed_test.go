package amqp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/policy"
)

// method returns the frame of a method.
func method(ch uint16, m wire.Method) []byte { return wire.AppendMethod(nil, ch, m) }

// join joins its parts.
func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	openOne   = method(1, &wire.ChannelOpen{})
	publishQ  = method(1, &wire.BasicPublish{RoutingKey: "q"})
	noProps   = []byte{0, 0}
	plainAuth = &wire.ConnectionStartOk{ClientProperties: amqptest.ClientCaps, Mechanism: "PLAIN", Response: []byte("\x00guest\x00guest"), Locale: "en_US"}
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

// works checks that the server still serves other clients.
func (bn *bench) works(t *testing.T) {
	t.Helper()
	p := amqptest.Dial(t, bn.addr)
	p.Login("guest", "/", wire.Tuning{ChannelMax: 1, FrameMax: 4096})
	p.Channel(1)
	p.Send(1, &wire.QueueDeclare{Queue: "works"})
	amqptest.Want[*wire.QueueDeclareOk](p, 1)
	p.Publish(1, &wire.BasicPublish{RoutingKey: "works"}, wire.Properties{}, "m")
	p.Send(1, &wire.BasicGet{NoAck: true})
	amqptest.Want[*wire.BasicGetOk](p, 1)
	p.Content()
	p.Send(0, &wire.ConnectionClose{Closing: wire.Closing{ReplyCode: 200}})
	p.Bare(0, wire.IDConnectionCloseOk)
	p.HangUp()
	p.Closed()
}

// pipe serves one end of a pipe in memory and returns the other.
func (bn *bench) pipe() net.Conn {
	ours, theirs := net.Pipe()
	bn.server.ServeConn(theirs)
	return ours
}

// opening returns everything that a client sends up to connection.open.
func opening() []byte {
	return join([]byte(wire.ProtocolHeader), method(0, plainAuth),
		method(0, &wire.ConnectionTuneOk{Tuning: wire.Tuning{ChannelMax: 2047, FrameMax: 131072}}), method(0, &wire.ConnectionOpen{VirtualHost: "/"}))
}

// TestHandshakeRefusals: each error of a client before connection.open-ok gets the right answer.
func TestHandshakeRefusals(t *testing.T) {
	bn := start(t, Limits{})
	secret := auth.Secret("outsider")
	bn.keepGuest()
	amqptest.Must[bool](t)(bn.auth.PutUser(context.Background(), "outsider", auth.UserSpec{Password: &secret}))
	const refused = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
	startOk := func(mechanism, response string, caps wire.Table) []byte {
		return method(0, &wire.ConnectionStartOk{ClientProperties: caps, Mechanism: mechanism, Response: []byte(response), Locale: "en_US"})
	}
	tuneOk := func(ch uint16, frame uint32) []byte {
		return method(0, &wire.ConnectionTuneOk{Tuning: wire.Tuning{ChannelMax: ch, FrameMax: frame}})
	}
	ok := startOk("PLAIN", "\x00guest\x00guest", amqptest.ClientCaps)
	amqplain := string(wire.Table(nil).AddString("LOGIN", "guest").AddString("PASSWORD", "guest"))
	open := func(v string) []byte { return method(0, &wire.ConnectionOpen{VirtualHost: v}) }
	for _, tt := range []struct {
		name string
		in   []byte
		code wire.Code // 0: the server closes the socket without a close method
		text string
		id   wire.MethodID
	}{
		{"wrong password", startOk("PLAIN", "\x00guest\x00wrong", amqptest.ClientCaps), 403, refused, 0},
		{"unknown user", startOk("PLAIN", "\x00nobody\x00x", amqptest.ClientCaps), 403, refused, 0},
		{"no password", startOk("PLAIN", "\x00guest\x00", amqptest.ClientCaps), 403, refused, 0},
		{"no NULs", startOk("PLAIN", "guest", amqptest.ClientCaps), 403, refused, 0},
		{"one NUL", startOk("PLAIN", "\x00guest", amqptest.ClientCaps), 403, refused, 0},
		{"without the capability", startOk("PLAIN", "\x00guest\x00wrong", nil), 0, "", 0},
		{"unknown mechanism", startOk("EXTERNAL", "", amqptest.ClientCaps), 0, "", 0},
		{"amqplain without a password", startOk("AMQPLAIN", string(wire.Table(nil).AddString("LOGIN", "guest")), amqptest.ClientCaps), 403, strings.ReplaceAll(refused, "PLAIN", "AMQPLAIN"), 0},
		{"amqplain not a table", startOk("AMQPLAIN", "\xff", amqptest.ClientCaps), 403, strings.ReplaceAll(refused, "PLAIN", "AMQPLAIN"), 0},
		{"frame_max 100", join(ok, tuneOk(10, 100)), 530, "NOT_ALLOWED - negotiated frame_max = 100 is lower than the minimum allowed value (4096)", wire.IDConnectionTuneOk},
		{"frame_max 1 GiB", join(ok, tuneOk(10, 1<<30)), 530, "NOT_ALLOWED - negotiated frame_max = 1073741824 is higher than the maximum allowed value (131072)", wire.IDConnectionTuneOk},
		{"frame_max 0", join(ok, tuneOk(10, 0)), 530, "NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)", wire.IDConnectionTuneOk},
		{"channel_max 65535", join(ok, tuneOk(65535, 4096)), 530, "NOT_ALLOWED - negotiated channel_max = 65535 is higher than the maximum allowed value (2047)", wire.IDConnectionTuneOk},
		{"channel_max 0", join(ok, tuneOk(0, 4096)), 530, "NOT_ALLOWED - negotiated channel_max = 0 is higher than the maximum allowed value (2047)", wire.IDConnectionTuneOk},
		{"no such vhost", join(ok, tuneOk(1, 4096), open("nope")), 530, "NOT_ALLOWED - vhost nope not found", wire.IDConnectionOpen},
		{"the door's own vhost", join(ok, tuneOk(1, 4096), open(policy.InternalVhost)), 530, "NOT_ALLOWED - vhost amq.internal not found", wire.IDConnectionOpen},
		{"no rights in the vhost", join(startOk("AMQPLAIN", string(wire.Table(nil).AddString("LOGIN", "outsider").AddString("PASSWORD", "outsider")), amqptest.ClientCaps), tuneOk(1, 4096), open("/")), 530, "NOT_ALLOWED - access to vhost '/' refused for user 'outsider'", wire.IDConnectionOpen},
		{"a method before login", openOne, 504, "CHANNEL_ERROR - method on channel 1 before the connection is open", 0},
		{"the wrong method", open("/"), 503, "COMMAND_INVALID - method 40 of class 10 while *wire.ConnectionStartOk was expected", wire.IDConnectionOpen},
		{"a body before login", wire.AppendFrame(nil, 3, 0, []byte("x")), 505, "UNEXPECTED_FRAME - frame of type 3 before the connection is open", 0},
		{"a large frame before login", []byte{1, 0, 0, 0, 0, 0x10, 0}, 501, "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4096,4088}", 0},
		{"nested tables before login", startOk("PLAIN", "", deepTable(200)), 501, "nested more than 32 deep", 0},
		{"amqplain", join(startOk("AMQPLAIN", amqplain, amqptest.ClientCaps), tuneOk(1, 4096), open("/"), method(0, &wire.ConnectionClose{})), 200, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := amqptest.Dial(t, bn.addr)
			p.Raw(append([]byte(wire.ProtocolHeader), tt.in...))
			p.Conn.(*net.TCPConn).CloseWrite()
			var got wire.Closing
			for {
				f, err := p.Frame()
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
		p := amqptest.Dial(t, bn.addr)
		p.Raw([]byte(hello))
		b, err := io.ReadAll(p.Conn)
		if string(b) != wire.ProtocolHeader || err != nil && !amqptest.IsReset(err) {
			t.Errorf("%q was answered %q, %v", hello, b, err)
		}
	}
	bn.works(t)
}

func TestTooManyChannels(t *testing.T) {
	bn := start(t, Limits{})
	p := amqptest.Dial(t, bn.addr)
	p.Login("guest", "/", wire.Tuning{ChannelMax: 3, FrameMax: 4096})
	for ch := range uint16(3) {
		p.Channel(ch + 1)
	}
	p.Send(2, &wire.ChannelClose{})
	p.Bare(2, wire.IDChannelCloseOk)
	p.Channel(2) // the channel's number is free again
	p.Send(4, &wire.ChannelOpen{})
	if got := amqptest.Want[*wire.ConnectionClose](p, 0); got.ReplyCode != 504 {
		t.Errorf("%+v", got)
	}
}
