package wire

import (
	"encoding/binary"
	"unicode/utf8"
)

// Property flags (specification 4.2.6.1; class basic). Bit 0 would announce a second word of flags
// and bit 1 is not defined. Both are refused.
const (
	HasContentType     = 1 << 15
	HasContentEncoding = 1 << 14
	HasHeaders         = 1 << 13
	HasDeliveryMode    = 1 << 12
	HasPriority        = 1 << 11
	HasCorrelationID   = 1 << 10
	HasReplyTo         = 1 << 9
	HasExpiration      = 1 << 8
	HasMessageID       = 1 << 7
	HasTimestamp       = 1 << 6
	HasType            = 1 << 5
	HasUserID          = 1 << 4
	HasAppID           = 1 << 3
	HasClusterID       = 1 << 2
)

// Properties are the message properties of class basic. Flags says which are present. The strings
// alias the parsed input.
type Properties struct {
	Flags                                   uint16
	DeliveryMode, Priority                  byte
	Timestamp                               uint64
	ContentType, ContentEncoding            []byte
	CorrelationID, ReplyTo, Expiration      []byte
	MessageID, Type, UserID, AppID, Cluster []byte
	Headers                                 Table
}

// Header is a content header: the class, the size of the body, and the unparsed property block
// (flags and values).
type Header struct {
	Class    uint16
	BodySize uint64
	Block    []byte
}

// ParseHeader parses the payload of a header frame, but not the property block.
func ParseHeader(payload []byte) (Header, error) {
	if len(payload) < 14 {
		return Header{}, Errorf(CodeFrameError, "cannot decode %s", octets(payload))
	}
	if w := binary.BigEndian.Uint16(payload[2:]); w != 0 {
		return Header{}, Errorf(CodeUnexpectedFrame, "content header with weight %d, which must be 0", w)
	}
	return Header{
		Class:    binary.BigEndian.Uint16(payload),
		BodySize: binary.BigEndian.Uint64(payload[4:]),
		Block:    payload[12:],
	}, nil
}

// ParseProperties parses a property block. Bytes that are left over, or that it cannot parse, are a
// syntax error.
func ParseProperties(block []byte) (p Properties, err error) {
	c := codec{b: block}
	c.short(&p.Flags)
	if c.err == nil && p.Flags&3 != 0 {
		return p, Errorf(CodeSyntaxError, "property flags %#04x are not those of class basic", p.Flags)
	}
	str := func(flag uint16, v *[]byte) {
		if p.Flags&flag != 0 {
			*v = c.shortbytes()
		}
	}
	str(HasContentType, &p.ContentType)
	str(HasContentEncoding, &p.ContentEncoding)
	if p.Flags&HasHeaders != 0 {
		p.Headers = Table(c.longbytes())
		if c.err == nil {
			if err := p.Headers.Validate(); err != nil {
				return p, Errorf(CodeFrameError, "cannot decode the headers of a message: %v", err)
			}
		}
	}
	if p.Flags&HasDeliveryMode != 0 {
		c.octet(&p.DeliveryMode)
	}
	if p.Flags&HasPriority != 0 {
		c.octet(&p.Priority)
	}
	str(HasCorrelationID, &p.CorrelationID)
	str(HasReplyTo, &p.ReplyTo)
	str(HasExpiration, &p.Expiration)
	str(HasMessageID, &p.MessageID)
	if p.Flags&HasTimestamp != 0 {
		c.longlong(&p.Timestamp)
	}
	str(HasType, &p.Type)
	str(HasUserID, &p.UserID)
	str(HasAppID, &p.AppID)
	str(HasClusterID, &p.Cluster)
	if c.err != nil {
		return p, Errorf(CodeSyntaxError, "cannot decode the properties of a message: %v", c.err)
	}
	if len(c.b) != 0 {
		return p, Errorf(CodeSyntaxError, "cannot decode the properties of a message: %d bytes too many", len(c.b))
	}
	return p, nil
}

// SetString sets one of the properties that are short strings, and its flag. It ignores values that
// do not fit or are not UTF-8.
func (p *Properties) SetString(flag uint16, field *[]byte, v []byte) {
	if len(v) <= 255 && utf8.Valid(v) {
		*field = v
		p.Flags |= flag
	}
}

// Append appends the property block.
func (p *Properties) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, p.Flags)
	str := func(flag uint16, v []byte) {
		if p.Flags&flag != 0 {
			dst = append(append(dst, byte(len(v))), v...)
		}
	}
	str(HasContentType, p.ContentType)
	str(HasContentEncoding, p.ContentEncoding)
	if p.Flags&HasHeaders != 0 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(p.Headers)))
		dst = append(dst, p.Headers...)
	}
	if p.Flags&HasDeliveryMode != 0 {
		dst = append(dst, p.DeliveryMode)
	}
	if p.Flags&HasPriority != 0 {
		dst = append(dst, p.Priority)
	}
	str(HasCorrelationID, p.CorrelationID)
	str(HasReplyTo, p.ReplyTo)
	str(HasExpiration, p.Expiration)
	str(HasMessageID, p.MessageID)
	if p.Flags&HasTimestamp != 0 {
		dst = binary.BigEndian.AppendUint64(dst, p.Timestamp)
	}
	str(HasType, p.Type)
	str(HasUserID, p.UserID)
	str(HasAppID, p.AppID)
	str(HasClusterID, p.Cluster)
	return dst
}

// AppendHeader appends a content header frame of class basic.
func AppendHeader(dst []byte, channel uint16, bodySize int, block []byte) []byte {
	dst = appendFrameHead(dst, FrameHeader, channel, 12+len(block))
	dst = append(dst, 0, ClassBasic, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(bodySize))
	dst = append(dst, block...)
	return append(dst, FrameEnd)
}
