package wire

import "encoding/binary"

// The methods of class basic (60), confirm (85) and tx (90; all bare). The methods that occur once
// for each message have extra functions that neither copy nor allocate.

type BasicQos struct {
	PrefetchSize  uint32
	PrefetchCount uint16
	Global        bool
}

func (*BasicQos) ID() MethodID { return IDBasicQos }
func (m *BasicQos) walk(c *codec) {
	c.long(&m.PrefetchSize)
	c.short(&m.PrefetchCount)
	c.bits(&m.Global)
}

type BasicConsume struct {
	Queue, ConsumerTag                string
	NoLocal, NoAck, Exclusive, NoWait bool
	Arguments                         Table
}

func (*BasicConsume) ID() MethodID { return IDBasicConsume }
func (m *BasicConsume) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Queue)
	c.shortstr(&m.ConsumerTag)
	c.bits(&m.NoLocal, &m.NoAck, &m.Exclusive, &m.NoWait)
	c.table(&m.Arguments)
}

type BasicConsumeOk struct{ ConsumerTag string }

func (*BasicConsumeOk) ID() MethodID    { return IDBasicConsumeOk }
func (m *BasicConsumeOk) walk(c *codec) { c.shortstr(&m.ConsumerTag) }

type BasicCancel struct {
	ConsumerTag string
	NoWait      bool
}

func (*BasicCancel) ID() MethodID { return IDBasicCancel }
func (m *BasicCancel) walk(c *codec) {
	c.shortstr(&m.ConsumerTag)
	c.bits(&m.NoWait)
}

type BasicCancelOk struct{ ConsumerTag string }

func (*BasicCancelOk) ID() MethodID    { return IDBasicCancelOk }
func (m *BasicCancelOk) walk(c *codec) { c.shortstr(&m.ConsumerTag) }

type BasicPublish struct {
	Exchange, RoutingKey string
	Mandatory, Immediate bool
}

func (*BasicPublish) ID() MethodID { return IDBasicPublish }
func (m *BasicPublish) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Exchange)
	c.shortstr(&m.RoutingKey)
	c.bits(&m.Mandatory, &m.Immediate)
}

// Publish is basic.publish. Its strings alias the frame.
type Publish struct {
	Exchange, RoutingKey []byte
	Mandatory, Immediate bool
}

// ParsePublish parses the payload of a method frame whose id is IDBasicPublish.
func ParsePublish(payload []byte, p *Publish) error {
	c := codec{b: payload}
	c.cut(6) // ids, ticket
	p.Exchange = c.shortbytes()
	p.RoutingKey = c.shortbytes()
	bits := c.cut(1)
	if c.err != nil || len(c.b) != 0 {
		return Errorf(CodeFrameError, "cannot decode %s", octets(payload))
	}
	p.Mandatory, p.Immediate = bits[0]&1 != 0, bits[0]&2 != 0
	return nil
}

type BasicReturn struct {
	ReplyCode            Code
	ReplyText            string
	Exchange, RoutingKey string
}

func (*BasicReturn) ID() MethodID { return IDBasicReturn }
func (m *BasicReturn) walk(c *codec) {
	c.short((*uint16)(&m.ReplyCode))
	c.shortstr(&m.ReplyText)
	c.shortstr(&m.Exchange)
	c.shortstr(&m.RoutingKey)
}

type BasicDeliver struct {
	ConsumerTag          string
	DeliveryTag          uint64
	Redelivered          bool
	Exchange, RoutingKey string
}

func (*BasicDeliver) ID() MethodID { return IDBasicDeliver }
func (m *BasicDeliver) walk(c *codec) {
	c.shortstr(&m.ConsumerTag)
	c.longlong(&m.DeliveryTag)
	c.bits(&m.Redelivered)
	c.shortstr(&m.Exchange)
	c.shortstr(&m.RoutingKey)
}

// AppendDeliver appends a basic.deliver frame. Each string has at most 255 bytes.
func AppendDeliver(dst []byte, channel uint16, consumerTag string, tag uint64, redelivered bool, exchange []byte, key string) []byte {
	start := len(dst)
	dst = beginFrame(dst, FrameMethod, channel)
	dst = append(dst, 0, ClassBasic, 0, 60)
	dst = appendShortstr(dst, consumerTag)
	dst = binary.BigEndian.AppendUint64(dst, tag)
	dst = append(dst, boolByte(redelivered))
	dst = append(append(dst, byte(len(exchange))), exchange...)
	dst = appendShortstr(dst, key)
	return endFrame(dst, start)
}

type BasicGet struct {
	Queue string
	NoAck bool
}

func (*BasicGet) ID() MethodID { return IDBasicGet }
func (m *BasicGet) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Queue)
	c.bits(&m.NoAck)
}

type BasicGetOk struct {
	DeliveryTag          uint64
	Redelivered          bool
	Exchange, RoutingKey string
	MessageCount         uint32
}

func (*BasicGetOk) ID() MethodID { return IDBasicGetOk }
func (m *BasicGetOk) walk(c *codec) {
	c.longlong(&m.DeliveryTag)
	c.bits(&m.Redelivered)
	c.shortstr(&m.Exchange)
	c.shortstr(&m.RoutingKey)
	c.long(&m.MessageCount)
}

type BasicGetEmpty struct{}

func (*BasicGetEmpty) ID() MethodID    { return IDBasicGetEmpty }
func (m *BasicGetEmpty) walk(c *codec) { c.reservedShortstr() }

type BasicAck struct {
	DeliveryTag uint64
	Multiple    bool
}

func (*BasicAck) ID() MethodID { return IDBasicAck }
func (m *BasicAck) walk(c *codec) {
	c.longlong(&m.DeliveryTag)
	c.bits(&m.Multiple)
}

// AppendAck appends a basic.ack frame.
func AppendAck(dst []byte, channel uint16, tag uint64, multiple bool) []byte {
	dst = appendFrameHead(dst, FrameMethod, channel, 13)
	dst = append(dst, 0, ClassBasic, 0, 80)
	dst = binary.BigEndian.AppendUint64(dst, tag)
	return append(dst, boolByte(multiple), FrameEnd)
}

// AppendNack appends a basic.nack frame of a server. Clients ignore its requeue bit.
func AppendNack(dst []byte, channel uint16, tag uint64, multiple bool) []byte {
	dst = appendFrameHead(dst, FrameMethod, channel, 13)
	dst = append(dst, 0, ClassBasic, 0, 120)
	dst = binary.BigEndian.AppendUint64(dst, tag)
	return append(dst, boolByte(multiple), FrameEnd)
}

type BasicReject struct {
	DeliveryTag uint64
	Requeue     bool
}

func (*BasicReject) ID() MethodID { return IDBasicReject }
func (m *BasicReject) walk(c *codec) {
	c.longlong(&m.DeliveryTag)
	c.bits(&m.Requeue)
}

type BasicNack struct {
	DeliveryTag       uint64
	Multiple, Requeue bool
}

func (*BasicNack) ID() MethodID { return IDBasicNack }
func (m *BasicNack) walk(c *codec) {
	c.longlong(&m.DeliveryTag)
	c.bits(&m.Multiple, &m.Requeue)
}

// Settle is basic.ack, basic.nack and basic.reject in one type.
type Settle struct {
	Tag               uint64
	Ack               bool // basic.ack; otherwise basic.nack or basic.reject
	Multiple, Requeue bool
	Recover           bool // basic.recover, with Multiple and Requeue
}

// ParseSettle parses the payload of a method frame whose id is IDBasicAck, IDBasicNack or
// IDBasicReject.
func ParseSettle(id MethodID, payload []byte) (s Settle, err error) {
	if len(payload) != 13 {
		return s, Errorf(CodeFrameError, "cannot decode %s", octets(payload))
	}
	s.Tag = binary.BigEndian.Uint64(payload[4:])
	bits := payload[12]
	switch id {
	case IDBasicAck:
		s.Ack, s.Multiple = true, bits&1 != 0
	case IDBasicNack:
		s.Multiple, s.Requeue = bits&1 != 0, bits&2 != 0
	default:
		s.Requeue = bits&1 != 0
	}
	return s, nil
}

type BasicRecoverAsync struct{ Requeue bool }

func (*BasicRecoverAsync) ID() MethodID    { return IDBasicRecoverAsync }
func (m *BasicRecoverAsync) walk(c *codec) { c.bits(&m.Requeue) }

type BasicRecover struct{ Requeue bool }

func (*BasicRecover) ID() MethodID    { return IDBasicRecover }
func (m *BasicRecover) walk(c *codec) { c.bits(&m.Requeue) }

type ConfirmSelect struct{ NoWait bool }

func (*ConfirmSelect) ID() MethodID    { return IDConfirmSelect }
func (m *ConfirmSelect) walk(c *codec) { c.bits(&m.NoWait) }
