package hostile

import (
	"bytes"
	"strings"
)

// raw returns a function for Case.in whose bytes do not depend on the server.
func raw(b ...[]byte) func(AMQP) []byte { return func(AMQP) []byte { return join(b...) } }

func text(s string) func(AMQP) []byte { return raw([]byte(s)) }

// in returns the bytes of a login, followed by a hostile client's bytes.
func in(b ...[]byte) func(AMQP) []byte {
	return func(s AMQP) []byte {
		return join(startOk(capable, "PLAIN", plain(s.User, s.Password)), join(b...))
	}
}

const refusedLogin = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."

// beforeOpen are offences before connection.open-ok.
var beforeOpen = []Case{
	{1, "garbage", first, text("\xde\xad\xbe\xef garbage that is no protocol at all"), Answer{kind: header}, nil},
	{2, "AMQP 0-9-2", first, text("AMQP\x00\x00\x09\x02"), Answer{kind: header}, nil},
	{2, "AMQP 0-8", first, text("AMQP\x01\x01\x08\x00"), Answer{kind: header}, nil},
	{3, "AMQP 1.0", first, text("AMQP\x00\x01\x00\x00"), Answer{kind: header}, nil},
	{3, "AMQP 1.0 with SASL", first, text("AMQP\x03\x01\x00\x00"), Answer{kind: header}, nil},
	{4, "HTTP GET", first, text("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Answer{kind: header}, nil},
	{5, "TLS client hello", first, text("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x5a", 500)), Answer{kind: header}, nil},
	{6, "header of another length", first, text("AMQPX"), Answer{kind: header}, nil},
	{6, "PROXY protocol, which nobody asked for", first, text("PROXY TCP4 127.0.0.1 127.0.0.1 1 5672\r\n" + protocolHeader), Answer{kind: header}, nil},
	{7, "half a header, then nothing", first, text("AMQP\x00"), Answer{kind: silent}, nil},
	{8, "the header, then nothing", early, text(""), Answer{kind: silent}, nil},
	{8, "start-ok, then nothing", early, in(), Answer{kind: silent}, nil},
	{8, "half a frame, then heartbeats for ever", early, raw(bytes.Repeat(frame(frameHeartbeat, 0, nil), 100)), Answer{kind: silent}, nil},
	{9, "a method before login", early, raw(channelOpen(1)), closes(504, "before the connection is open"), nil},
	{9, "connection.open before login", early, raw(connectionOpen("/")), closes(503, ""), nil},
	{9, "a body before login", early, raw(frame(frameBody, 0, []byte("x"))), closes(505, "before the connection is open"), nil},
	{9, "a header before login", early, raw(contentHeader(0, basic, 0, 1<<30, noProperties)), closes(505, "before the connection is open"), nil},
	{10, "frame of 4 GiB", early, text("\x01\x00\x00\xff\xff\xff\xff"), closes(501, "frame_too_large,4294967295,4088"), nil},
	{10, "frame of 2 GiB", early, text("\x01\x00\x00\x7f\xff\xff\xff"), closes(501, "frame_too_large"), nil},
	{11, "start-ok of 8 KiB", early, raw(startOk(capable.text("product", strings.Repeat("x", 8192)), "PLAIN", plain("x", "y"))), closes(501, "frame_too_large"), nil},
	{12, "wrong end octet", early, text("\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0b\xcd"), closes(501, "invalid_frame_end_marker,205"), nil},
	{13, "table longer than its frame", early, raw(method(0, connection, 11, uint32(0xffffffff))), closes(501, "cannot decode"), nil},
	{13, "long string longer than its frame", early, raw(method(0, connection, 11, table(nil), "PLAIN", uint32(0xfffffff0), "en_US")), closes(501, "cannot decode"), nil},
	{13, "table shorter than its field", early, raw(startOk(table("\x01kS\x00\x00\x01\x00x"), "PLAIN", "")), closes(501, ""), nil},
	{14, "560 nested tables", early, raw(startOk(nested(560), "PLAIN", "")), closes(501, "nested more than 32 deep"), nil},
	{15, "unknown field type", early, raw(startOk(table("\x01kZ"), "PLAIN", "")), closes(501, "unknown field type"), nil},
	{15, "field type of another dialect", early, raw(startOk(table("\x01k\x00"), "PLAIN", "")), closes(501, "unknown field type"), nil},
	{16, "unknown mechanism", early, raw(startOk(capable, "SCRAM-SHA-3", "x")), Answer{kind: silent}, nil},
	{16, "EXTERNAL without TLS", early, raw(startOk(capable, "EXTERNAL", "")), Answer{kind: silent}, nil},
	{16, "ANONYMOUS", early, raw(startOk(capable, "ANONYMOUS", "")), Answer{kind: silent}, nil},
	{16, "no mechanism", early, raw(startOk(capable, "", "")), Answer{kind: silent}, nil},
	{17, "PLAIN without NULs", early, raw(startOk(capable, "PLAIN", "nobody-knows")), closes(403, refusedLogin), nil},
	{17, "PLAIN with one NUL", early, raw(startOk(capable, "PLAIN", "\x00nobody-knows")), closes(403, refusedLogin), nil},
	{17, "PLAIN with three NULs", early, raw(startOk(capable, "PLAIN", "\x00nobody\x00knows\x00")), closes(403, refusedLogin), nil},
	{17, "PLAIN without a password", early, func(s AMQP) []byte { return startOk(capable, "PLAIN", plain(s.User, "")) }, closes(403, refusedLogin), nil},
	{17, "PLAIN without a user", early, raw(startOk(capable, "PLAIN", plain("", "x"))), closes(403, refusedLogin), nil},
	{17, "AMQPLAIN without a password", early, func(s AMQP) []byte {
		return startOk(capable, "AMQPLAIN", string(table(nil).text("LOGIN", s.User)))
	}, closes(403, "mechanism AMQPLAIN"), nil},
	{17, "AMQPLAIN with a number for a password", early, func(s AMQP) []byte {
		return startOk(capable, "AMQPLAIN", string(table(nil).text("LOGIN", s.User).long("PASSWORD", 0)))
	}, closes(403, "mechanism AMQPLAIN"), nil},
	{17, "AMQPLAIN that is no table", early, raw(startOk(capable, "AMQPLAIN", "\xff")), closes(403, "mechanism AMQPLAIN"), nil},
	{18, "wrong password", early, func(s AMQP) []byte { return startOk(capable, "PLAIN", plain(s.User, s.Password+"x")) }, closes(403, refusedLogin), nil},
	{19, "unknown user", early, raw(startOk(capable, "PLAIN", plain("nobody-19", "x"))), closes(403, refusedLogin), nil},
	{20, "unknown user, and not told to clients that would not understand", early, raw(startOk(nil, "PLAIN", plain("nobody-20", "x"))), Answer{kind: silent}, nil},
	{21, "frame_max 100", early, in(tuneOk(10, 100, 0)), closes(530, "frame_max = 100"), nil},
	{21, "frame_max 0", early, in(tuneOk(10, 0, 0)), closes(530, "frame_max = 0"), nil},
	{22, "frame_max 1 GiB", early, in(tuneOk(10, 1<<30, 0)), closes(530, "frame_max = 1073741824"), nil},
	{23, "channel_max 65535", early, in(tuneOk(65535, 4096, 0)), closes(530, "channel_max = 65535"), nil},
	{23, "channel_max 0", early, in(tuneOk(0, 4096, 0)), closes(530, "channel_max = 0"), nil},
	{24, "unknown virtual host", early, in(tuneOk(10, 4096, 0), connectionOpen("nope")), closes(530, "vhost nope not found"), nil},
	{24, "the virtual host inside", early, in(tuneOk(10, 4096, 0), connectionOpen("amq.internal")), closes(530, "vhost amq.internal not found"), nil},
	{24, "virtual host with a line break", early, in(tuneOk(10, 4096, 0), connectionOpen("a\r\nb")), closes(530, "not found"), nil},
	{84, "secure-ok before login", early, raw(method(0, connection, 21, []byte("x"))), closes(503, ""), nil},
}
