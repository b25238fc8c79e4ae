package hostile

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
)

// q is the queue of the cases. It is exclusive, so it is deleted with its connection. Each
// connection replaces the name by a name of its own with the same length.
const q = "hostile"

// on returns channel.open for channel 1, followed by other bytes.
func on(b ...[]byte) func(AMQP) []byte { return raw(channelOpen(1), join(b...)) }

// onQ is like on, and declares the queue first.
func onQ(b ...[]byte) func(AMQP) []byte { return on(declareQ, join(b...)) }

var declareQ = declare(1, q, exclusive, nil)

// message returns the frames that publish a message with these properties to the queue.
func message(properties []byte) []byte { return publish(1, "", q, properties, "m") }

// fullFrame is the largest payload of a frame.
const fullFrame = frameMax - 8

// manyFields returns a table of n fields of the smallest possible size.
func manyFields(n int) table { return table(bytes.Repeat([]byte("\x00V"), n)) }

// copies returns a CC header as large as a frame allows, which repeats one queue name.
func copies(name string) table {
	return table(nil).with(name, 'A', fields(bytes.Repeat([]byte("S\x00\x00\x00\x00"), (fullFrame-100)/5)))
}

// longKeys returns a table of n fields with names of 255 bytes.
func longKeys(n int) table {
	var t table
	for i := range n {
		t = append(append(append(t, 255), strings.Repeat(string(rune('a'+i%26)), 255)...), 'V')
	}
	return t
}

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// odd has legal values that often cause errors in programs.
var odd = table(nil).with("decimal", 'D', append([]byte{255}, 0xff, 0xff, 0xff, 0xff)).with("nan", 'd', u64(math.Float64bits(math.NaN()))).
	with("inf", 'd', u64(math.Float64bits(math.Inf(-1)))).with("when", 'T', u64(math.MaxUint64)).with("big", 'L', u64(math.MaxUint64)).
	with("", 'V', nil).with("", 'V', nil).with("x", 'x', fields([]byte("\x00\xff")))

// onOpen are offences on an open connection.
var onOpen = []Case{
	{25, "heartbeat on channel 3", open, raw(frame(frameHeartbeat, 3, nil)), closes(505, "type 8, all octets = <<>>"), nil},
	{26, "heartbeat with payload", open, raw(frame(frameHeartbeat, 0, []byte("x"))), closes(501, "unknown_frame"), nil},
	{27, "frame of type 9", open, text("\x09\x00\x00"), closes(501, "type 9, all octets = <<>>: unknown_frame"), nil},
	{27, "frame of type 0", open, text("\x00\x00\x00\x00\x00\x00\x00\xce"), closes(501, "unknown_frame"), nil},
	{28, "empty method", open, on(frame(frameMethod, 1, nil)), closes(501, "cannot decode <<>>"), nil},
	{28, "half an id", open, on(frame(frameMethod, 1, []byte{0, 0})), closes(501, "cannot decode <<0,0>>"), nil},
	{29, "publish on a channel that is not open", open, raw(publishMethod(1, "", q)), closes(504, "expected 'channel.open'"), nil},
	{29, "header on a channel that is not open", open, raw(contentHeader(1, basic, 0, 0, noProperties)), closes(504, "expected 'channel.open'"), nil},
	{29, "content on channel 0", open, raw(frame(frameBody, 0, []byte("x"))), closes(505, "expected method frame"), nil},
	{30, "channel opened twice", open, on(channelOpen(1)), closes(504, "second 'channel.open' seen"), nil},
	{31, "channel above channel_max", open, raw(channelOpen(channelMax + 1)), closes(504, "above the negotiated channel_max (64)"), nil},
	{31, "channel 65535", open, raw(channelOpen(65535)), closes(504, "above the negotiated channel_max"), nil},
	{32, "unknown class", open, on(method(1, 99, 1)), closes(503, "unknown class 99"), nil},
	{33, "unknown method", open, on(method(1, basic, 99)), closes(540, "unknown method 99 of class 60"), nil},
	{33, "a server's method", open, on(method(1, queue, 11, "q", uint32(0), uint32(0))), closes(503, "not for servers"), nil},
	{33, "a server's bare method", open, on(method(1, tx, 11)), closes(503, "not for servers"), nil},
	{34, "arguments cut short", open, on(method(1, queue, 10, uint8(0))), closes(501, "cannot decode"), nil},
	{35, "short string past the end", open, on(method(1, queue, 10, uint16(0), uint8(200), uint8('q'))), closes(501, "cannot decode"), nil},
	{36, "trailing bytes", open, on(method(1, tx, 10, uint8(0))), closes(501, "1 bytes too many"), nil},
	{37, "header without a method", open, on(contentHeader(1, basic, 0, 0, noProperties)), closes(505, "expected method frame, got non method frame instead"), nil},
	{38, "body without a header", open, on(body(1, "x")), closes(505, "expected method frame, got non method frame instead"), nil},
	{38, "body right after the method", open, on(publishMethod(1, "", q), body(1, "x")), closes(505, "expected content header for class 60"), nil},
	{39, "method before the header", open, on(publishMethod(1, "", q), publishMethod(1, "", q)), closes(505, "expected content header for class 60"), nil},
	{39, "method before the body", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 5, noProperties), publishMethod(1, "", q)), closes(505, "expected content body"), nil},
	{39, "second header before the body", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 5, noProperties), contentHeader(1, basic, 0, 5, noProperties)), closes(505, "expected content body"), nil},
	{40, "header of another class", open, on(publishMethod(1, "", q), contentHeader(1, connection, 0, 0, noProperties)), closes(505, "got one for class 10 instead"), nil},
	{41, "weight 7", open, on(publishMethod(1, "", q), contentHeader(1, basic, 7, 0, noProperties)), closes(505, "weight 7"), nil},
	{42, "body of 2^64-1", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, math.MaxUint64, noProperties)), refuses(406, "message size 18446744073709551615 is larger than configured max size"), nil},
	{42, "body of 2^63", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 1<<63, noProperties)), refuses(406, "message size 9223372036854775808 is larger"), nil},
	{43, "body of 17 MiB", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 17<<20, noProperties)), refuses(406, "message size 17825792 is larger than configured max size 16777216"), nil},
	{44, "body longer than announced", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 3, noProperties), body(1, "four")), closes(501, "the body has 4 bytes, its header announced 3"), nil},
	{44, "body longer than announced, in pieces", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 3, noProperties), body(1, "tw"), body(1, "oo")), closes(501, "the body has 4 bytes, its header announced 3"), nil},
	{44, "body where none was announced", open, on(publish(1, "", q, noProperties, ""), body(1, "x")), closes(505, "expected method frame"), nil},
	{45, "1000 empty body frames", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 3, noProperties), bytes.Repeat(body(1, ""), 1000)), closes(505, "empty body frames"), nil},
	{46, "endless property flags", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 0, bytes.Repeat([]byte{0xff}, 1000))), closes(502, "property flags"), nil},
	{47, "flags without values", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 5, []byte{0xff, 0xfc})), closes(502, "cannot decode the properties"), nil},
	{47, "values without flags", open, on(publishMethod(1, "", q), contentHeader(1, basic, 0, 5, []byte{0, 0, 5, 'v', 'a', 'l', 'u', 'e'})), closes(502, ""), nil},
	{47, "header cut short", open, on(publishMethod(1, "", q), frame(frameHeader, 1, []byte{0, 60, 0, 0})), closes(501, "cannot decode"), nil},
	{48, "frame above frame_max", open, text("\x01\x00\x01\x00\x03\x0d\x40"), closes(501, "{frame_too_large,200000,131064}"), nil},
	{48, "frame of 4 GiB", open, text("\x03\x00\x01\xff\xff\xff\xff"), closes(501, "frame_too_large"), nil},
	{48, "bad end octet", open, raw(channelOpen(1)[:12], []byte{0}), closes(501, "invalid_frame_end_marker,0"), nil},
	{49, "ack of an unknown tag", open, on(method(1, basic, 80, uint64(7), uint8(0))), refuses(406, "unknown delivery tag 7"), nil},
	{49, "reject of an unknown tag", open, on(method(1, basic, 90, uint64(1<<63), uint8(1))), refuses(406, "unknown delivery tag"), nil},
	{50, "prefetch-size", open, on(method(1, basic, 10, uint32(1), uint16(0), uint8(0))), closes(540, "prefetch_size!=0 (1)"), nil},
	{51, "amq. prefix", open, on(declare(1, "amq.mine", 0, nil)), refuses(403, "amq.mine"), nil},
	{51, "amq. prefix of an exchange", open, on(method(1, exchange, 10, uint16(0), "amq.mine", "direct", uint8(0), table(nil))), refuses(403, "amq.mine"), nil},
	{52, "name that is not UTF-8", open, on(declare(1, "\xff\xfe", 0, nil)), closes(501, "not UTF-8"), nil},
	{52, "key that is not UTF-8", open, on(publishMethod(1, "", "\xff")), closes(501, "cannot decode"), nil},
	{52, "consumer tag that is not UTF-8", open, onQ(method(1, basic, 20, uint16(0), q, "\xc3\x28", uint8(0), table(nil))), closes(501, ""), nil},
	{52, "name with a control character", open, on(declare(1, "a\x1fb", 0, nil)), refuses(406, "control character"), nil},
	{53, "unknown exchange type", open, on(method(1, exchange, 10, uint16(0), "hostile-x", "nonsense", uint8(4), table(nil))), closes(503, "nonsense"), nil},
	{54, "queue declared otherwise", open, onQ(declare(1, q, exclusive|8, nil)), refuses(406, "inequivalent arg"), nil},
	{55, "publish to no exchange", open, on(publish(1, "nowhere", "", noProperties, "x")), refuses(404, "no exchange 'nowhere'"), nil},
	{56, "bind to no exchange", open, onQ(bind(1, q, "nowhere", "")), refuses(404, "no exchange 'nowhere'"), nil},
	{57, "consumer tag twice", open, onQ(method(1, basic, 20, uint16(0), q, "tag", uint8(0), table(nil)), method(1, basic, 20, uint16(0), q, "tag", uint8(0), table(nil))), closes(530, "attempt to reuse consumer tag 'tag'"), nil},
	{58, "tx.commit without tx.select", open, on(method(1, tx, 20)), refuses(406, "not transactional"), nil},
	{59, "confirm after tx", open, on(method(1, tx, 10), method(1, confirm, 10, uint8(0))), refuses(406, "cannot switch from tx to confirm mode"), nil},
	{60, "expiration abc", open, onQ(message(fields(uint16(hasExpiration), "abc"))), refuses(406, "expiration"), nil},
	{60, "expiration -1", open, onQ(message(fields(uint16(hasExpiration), "-1"))), refuses(406, "expiration"), nil},
	{60, "expiration beyond all time", open, onQ(message(fields(uint16(hasExpiration), strings.Repeat("9", 200)))), refuses(406, "expiration"), nil},
	{61, "another's user-id", open, onQ(message(fields(uint16(hasUserID), "nobody"))), refuses(406, "user_id property set to 'nobody'"), nil},
	{62, "flow(false)", open, on(method(1, channel, 20, uint8(0))), closes(540, "active=false"), nil},
	{63, "x-message-ttl -1", open, on(declare(1, q, exclusive, table(nil).long("x-message-ttl", -1))), refuses(406, "x-message-ttl"), nil},
	{63, "x-max-length of a text", open, on(declare(1, q, exclusive, table(nil).text("x-max-length", "10"))), refuses(406, "x-max-length"), nil},
	{64, "x-max-priority 300", open, on(declare(1, q, exclusive, table(nil).long("x-max-priority", 300))), refuses(406, "x-max-priority"), nil},
	{65, "delete the default exchange", open, on(method(1, exchange, 20, uint16(0), "", uint8(0))), refuses(403, "default exchange"), nil},
	{66, "immediate", open, on(method(1, basic, 40, uint16(0), "", q, uint8(2)), contentHeader(1, basic, 0, 0, noProperties)), closes(540, "immediate=true"), nil},
	{67, "headers 3000 deep", open, onQ(message(withHeaders(nested(3000)))), closes(501, "nested more than 32 deep"), nil},
	{67, "arrays 3000 deep", open, onQ(message(withHeaders(table(nil).with("a", 'A', deepArray(3000))))), closes(501, "nested more than 32 deep"), nil},
	{67, "arguments 40 deep", open, on(declare(1, q, exclusive, nested(40))), closes(501, "nested more than 32 deep"), nil},
	{67, "arguments of an unknown type", open, on(declare(1, q, exclusive, table("\x01kZ"))), closes(501, "unknown field type"), nil},
	{67, "arguments longer than their frame", open, on(method(1, queue, 10, uint16(0), q, uint8(0), uint32(0xffffffff))), closes(501, "cannot decode"), nil},
	{68, "connection.open twice", open, raw(connectionOpen("/")), closes(504, "unexpected method in connection state running"), nil},
	{69, "start-ok late", open, func(s AMQP) []byte { return startOk(capable, "PLAIN", plain(s.User, s.Password)) }, closes(504, "unexpected method in connection state running"), nil},
	{69, "tune-ok late", open, raw(tuneOk(2047, 1<<30, 0)), closes(504, "unexpected method in connection state running"), nil},
	{70, "class 50 on channel 0", open, raw(declare(0, q, 0, nil)), closes(504, "unexpected method in connection state running"), nil},
	{70, "connection class on channel 1", open, on(method(1, connection, 50, uint16(200), "", uint16(0), uint16(0))), closes(503, "unimplemented method"), nil},
	{76, "nack of everything where nothing is outstanding", open, on(method(1, basic, 120, uint64(0), uint8(1))), Answer{kind: goesOn}, nil},
	{76, "ack of everything where nothing is outstanding", open, on(method(1, basic, 80, uint64(0), uint8(1))), Answer{kind: goesOn}, nil},
	{76, "nack of tag 0", open, on(method(1, basic, 120, uint64(0), uint8(0))), refuses(406, "unknown delivery tag 0"), nil},
	{78, "65,000 headers", open, onQ(message(withHeaders(manyFields(65_000)))), closes(501, "more than 8192 fields"), nil},
	{78, "400 names of 255 bytes", open, onQ(message(withHeaders(longKeys(400)))), refuses(406, ""), nil},
	{78, "65,000 arguments", open, on(declare(1, q, exclusive, manyFields(65_000))), closes(501, "more than 8192 fields"), nil},
	{80, "reply-to without a consumer of replies", open, onQ(message(fields(uint16(hasReplyTo), "amq.rabbitmq.reply-to"))), refuses(406, "fast reply consumer does not exist"), nil},
	{81, "a frame full of CC", open, onQ(message(withHeaders(copies("CC")))), closes(501, "more than 8192 fields"), nil},
	{81, "8,000 keys in BCC", open, onQ(message(withHeaders(table(nil).with("BCC", 'A', fields(bytes.Repeat([]byte("S\x00\x00\x00\x01k"), 8000)))))), refuses(406, "more than 1024 keys"), nil},
	{84, "secure-ok when all is open", open, raw(method(0, connection, 21, []byte("x"))), closes(504, "unexpected method in connection state running"), nil},
}

// deepArray returns arrays nested to a depth.
func deepArray(depth int) []byte {
	b := fields([]byte(nil))
	for range depth {
		b = fields(append([]byte{'A'}, b...))
	}
	return b
}
