package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// protocolHeader opens an AMQP 0-9-1 connection (specification 4.2.2). A server answers other
// protocols with it.
const protocolHeader = "AMQP\x00\x00\x09\x01"

// Frame types (specification 4.2.3).
const (
	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
	frameEnd       = 0xCE
)

// Classes of methods (specification 1.3).
const (
	connection = 10
	channel    = 20
	exchange   = 40
	queue      = 50
	basic      = 60
	confirm    = 85
	tx         = 90
)

// table is an encoded field table without its length.
type table []byte

// frame returns one frame with any payload.
func frame(typ byte, ch uint16, payload []byte) []byte {
	b := []byte{typ}
	b = binary.BigEndian.AppendUint16(b, ch)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), frameEnd)
}

// method returns a method frame. An argument's type decides its encoding: uint8 (also for bits),
// uint16, uint32, uint64, string (short), []byte (long string), table.
func method(ch, class, id uint16, args ...any) []byte {
	return frame(frameMethod, ch, fields(append([]any{class, id}, args...)...))
}

func fields(args ...any) []byte {
	var b []byte
	for _, a := range args {
		switch a := a.(type) {
		case int:
			panic(fmt.Sprintf("%d has no width", a))
		case uint8:
			b = append(b, a)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, a)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, a)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, a)
		case string:
			b = append(append(b, byte(len(a))), a...)
		case []byte:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
		case table:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
		default:
			panic(fmt.Sprintf("%T cannot be written", a))
		}
	}
	return b
}

// with adds a field; data is the encoded value without its tag.
func (t table) with(name string, tag byte, data []byte) table {
	t = append(append(bytes.Clone(t), byte(len(name))), name...)
	return append(append(t, tag), data...)
}

func (t table) text(name, v string) table { return t.with(name, 'S', fields([]byte(v))) }
func (t table) long(name string, v int64) table {
	return t.with(name, 'l', fields(uint64(v)))
}

// nested returns a table of tables nested to a depth.
func nested(depth int) table {
	var t table
	for range depth {
		t = table(nil).with("t", 'F', fields(t))
	}
	return t
}

// contentHeader returns a content header frame.
func contentHeader(ch, class, weight uint16, size uint64, properties []byte) []byte {
	return frame(frameHeader, ch, append(fields(class, weight, size), properties...))
}

// Property flags (specification 4.2.6.1), bit 15 first.
const (
	hasHeaders    = 1 << 13
	hasReplyTo    = 1 << 9
	hasExpiration = 1 << 8
	hasUserID     = 1 << 4
)

var noProperties = fields(uint16(0))

func withHeaders(t table) []byte { return fields(uint16(hasHeaders), t) }

func body(ch uint16, p string) []byte { return frame(frameBody, ch, []byte(p)) }

// publish returns the frames of a publish: method, content header, and one body frame.
func publish(ch uint16, exchange, key string, properties []byte, p string) []byte {
	out := join(publishMethod(ch, exchange, key), contentHeader(ch, basic, 0, uint64(len(p)), properties))
	if p != "" {
		out = append(out, body(ch, p)...)
	}
	return out
}

func publishMethod(ch uint16, exchange, key string) []byte {
	return method(ch, basic, 40, uint16(0), exchange, key, uint8(0))
}

func channelOpen(ch uint16) []byte { return method(ch, channel, 10, "") }

// Bits of queue.declare.
const (
	passive   = 1
	exclusive = 4
)

func declare(ch uint16, name string, bits uint8, arguments table) []byte {
	return method(ch, queue, 10, uint16(0), name, bits, arguments)
}

func bind(ch uint16, queueName, exchangeName, key string) []byte {
	return method(ch, queue, 20, uint16(0), queueName, exchangeName, key, uint8(0), table(nil))
}

func startOk(capabilities table, mechanism, response string) []byte {
	return method(0, connection, 11, capabilities, mechanism, []byte(response), "en_US")
}

func tuneOk(channelMax uint16, frameMax uint32, heartbeat uint16) []byte {
	return method(0, connection, 31, channelMax, frameMax, heartbeat)
}

func connectionOpen(vhost string) []byte { return method(0, connection, 40, vhost, "", uint8(0)) }

func connectionClose() []byte {
	return method(0, connection, 50, uint16(200), "", uint16(0), uint16(0))
}

// capable is the client-properties table of a client that understands a refused login.
var capable = table(nil).with("capabilities", 'F', fields(table(nil).
	with("authentication_failure_close", 't', []byte{1}).with("consumer_cancel_notify", 't', []byte{1}).
	with("connection.blocked", 't', []byte{1})))

func plain(user, password string) string { return "\x00" + user + "\x00" + password }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
