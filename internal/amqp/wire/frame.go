// Package wire is the codec of AMQP 0-9-1: frames, methods, field tables and content headers, as
// the specification "AMQP 0-9-1" with RabbitMQ's errata lays them out (field tags in particular
// follow the errata, not the paper). It holds no state and no rule of the protocol beyond layout.
//
// Everything that is parsed comes from a stranger. Parsing never panics, never allocates by a
// length that was only declared, and bounds nesting and counts. Parsed tables, properties and hot
// methods alias the input, so that a publish costs no allocation here; callers that keep them copy
// them.
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

	// FrameOverhead is what a frame has around its payload: type, channel, size and end octet.
	FrameOverhead = 8
	frameHead     = 7
	// MinFrameMax is the least frame_max two peers may agree on, and the largest frame before they
	// have.
	MinFrameMax = 4096
)

// ProtocolHeader opens a connection, and refuses one when the client's is another.
const ProtocolHeader = "AMQP\x00\x00\x09\x01"

// Frame is one frame; Payload aliases the buffer it was parsed from.
type Frame struct {
	Type    byte
	Channel uint16
	Payload []byte
}

// NextFrame takes the first frame off buf and gives the bytes it occupies, or 0 when buf holds only
// a part of it. frameMax is the largest whole frame that was agreed on. An error ends the
// connection: the stream cannot be read further.
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

// octets shows bytes the way RabbitMQ's error texts do, shortened where they would not fit one.
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

// AppendFrame adds a whole frame.
func AppendFrame(dst []byte, typ byte, channel uint16, payload []byte) []byte {
	dst = appendFrameHead(dst, typ, channel, len(payload))
	dst = append(dst, payload...)
	return append(dst, FrameEnd)
}

// AppendHeartbeat adds a heartbeat frame.
func AppendHeartbeat(dst []byte) []byte { return AppendFrame(dst, FrameHeartbeat, 0, nil) }

func appendFrameHead(dst []byte, typ byte, channel uint16, size int) []byte {
	dst = append(dst, typ, byte(channel>>8), byte(channel))
	return binary.BigEndian.AppendUint32(dst, uint32(size))
}

// beginFrame starts a frame whose size is not known yet; endFrame, given where it started,
// completes it.
func beginFrame(dst []byte, typ byte, channel uint16) []byte {
	return appendFrameHead(dst, typ, channel, 0)
}

func endFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+3:], uint32(len(dst)-start-frameHead))
	return append(dst, FrameEnd)
}

// BodyFrame gives how many bytes of a body go into its next frame.
func BodyFrame(rest, frameMax int) int { return min(rest, frameMax-FrameOverhead) }

// AppendBody adds a body, cut into frames of at most frameMax bytes; an empty body has none.
func AppendBody(dst []byte, channel uint16, body []byte, frameMax int) []byte {
	for len(body) > 0 {
		n := BodyFrame(len(body), frameMax)
		dst = AppendFrame(dst, FrameBody, channel, body[:n])
		body = body[n:]
	}
	return dst
}
