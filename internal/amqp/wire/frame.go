// Package wire is the codec of AMQP 0-9-1: frames, methods, field tables and content headers. It
// follows the specification "AMQP 0-9-1" with RabbitMQ's errata. In particular, field tags follow
// the errata and not the specification. It has no state, and no rule of the protocol except layout.
//
// All input is untrusted. Parsing never panics, never allocates a size that was only declared, and
// limits nesting and counts. Parsed tables, properties and frequent methods alias the input, so
// that a publish needs no allocation here. Callers that keep them must copy them.
package wire

import (
	"encoding/binary"
	"strconv"
)

// Frame types and sizes (specification 4.2.3).
const (
	FrameMethod    = 1
	FrameHeader    = 2
	FrameBody      = 3
	FrameHeartbeat = 8
	FrameEnd       = 0xCE

	// FrameOverhead is the number of bytes around a frame's payload: type, channel, size and end
	// octet.
	FrameOverhead = 8
	frameHead     = 7
	// MinFrameMax is the smallest frame_max that two peers may agree on. Before they agree, no
	// frame is larger than this size.
	MinFrameMax = 4096
)

// ProtocolHeader begins a connection. The server also sends it to refuse a client with another
// header.
const ProtocolHeader = "AMQP\x00\x00\x09\x01"

// Frame is one frame. Payload aliases the parsed buffer.
type Frame struct {
	Type    byte
	Channel uint16
	Payload []byte
}

// NextFrame parses the first frame of buf and returns its length in bytes, or 0 if the frame is
// incomplete. frameMax is the agreed size of the largest frame. An error ends the connection,
// because the rest of the stream cannot be parsed.
func NextFrame(buf []byte, frameMax int) (f Frame, n int, err error) {
	if len(buf) > 0 {
		switch buf[0] {
		case FrameMethod, FrameHeader, FrameBody, FrameHeartbeat:
		default:
			return Frame{}, 0, Errorf(CodeFrameError, "type %d, all octets = <<>>: unknown_frame", buf[0])
		}
	}
	if len(buf) < frameHead {
		return Frame{}, 0, nil
	}
	size := uint64(binary.BigEndian.Uint32(buf[3:]))
	if size > uint64(frameMax-FrameOverhead) {
		return Frame{}, 0, Errorf(CodeFrameError, "type %d, all octets = <<>>: {frame_too_large,%d,%d}",
			buf[0], size, frameMax-FrameOverhead)
	}
	end := frameHead + int(size)
	if len(buf) <= end {
		return Frame{}, 0, nil
	}
	f = Frame{Type: buf[0], Channel: binary.BigEndian.Uint16(buf[1:]), Payload: buf[frameHead:end:end]}
	if buf[end] != FrameEnd {
		return Frame{}, 0, Errorf(CodeFrameError, "type %d, all octets = %s: {invalid_frame_end_marker,%d}",
			f.Type, octets(f.Payload), buf[end])
	}
	if f.Type == FrameHeartbeat {
		if f.Channel != 0 {
			return Frame{}, 0, Errorf(CodeUnexpectedFrame, "type %d, all octets = %s", f.Type, octets(f.Payload))
		}
		if size != 0 {
			return Frame{}, 0, Errorf(CodeFrameError, "type %d, all octets = %s: unknown_frame", f.Type, octets(f.Payload))
		}
	}
	return f, end + 1, nil
}

// octets formats bytes as RabbitMQ's error texts do. It shortens them if they do not fit.
func octets(b []byte) string {
	const most = 24
	out := append(make([]byte, 0, 4*most+8), "<<"...)
	for i, c := range b {
		if i > 0 {
			out = append(out, ',')
		}
		if i == most {
			out = append(out, "..."...)
			break
		}
		out = strconv.AppendUint(out, uint64(c), 10)
	}
	return string(append(out, ">>"...))
}

// AppendFrame appends a whole frame.
func AppendFrame(dst []byte, typ byte, channel uint16, payload []byte) []byte {
	dst = appendFrameHead(dst, typ, channel, len(payload))
	dst = append(dst, payload...)
	return append(dst, FrameEnd)
}

// AppendHeartbeat appends a heartbeat frame.
func AppendHeartbeat(dst []byte) []byte { return AppendFrame(dst, FrameHeartbeat, 0, nil) }

func appendFrameHead(dst []byte, typ byte, channel uint16, size int) []byte {
	dst = append(dst, typ, byte(channel>>8), byte(channel))
	return binary.BigEndian.AppendUint32(dst, uint32(size))
}

// beginFrame starts a frame whose size is not known yet. endFrame completes it; it needs the
// frame's start.
func beginFrame(dst []byte, typ byte, channel uint16) []byte {
	return appendFrameHead(dst, typ, channel, 0)
}

func endFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+3:], uint32(len(dst)-start-frameHead))
	return append(dst, FrameEnd)
}

// BodyFrame returns the number of bytes of a body that fit into its next frame.
func BodyFrame(rest, frameMax int) int { return min(rest, frameMax-FrameOverhead) }

// AppendBody appends a body in frames of at most frameMax bytes. An empty body has no frame.
func AppendBody(dst []byte, channel uint16, body []byte, frameMax int) []byte {
	for len(body) > 0 {
		n := BodyFrame(len(body), frameMax)
		dst = AppendFrame(dst, FrameBody, channel, body[:n])
		body = body[n:]
	}
	return dst
}
