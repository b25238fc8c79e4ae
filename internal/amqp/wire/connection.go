package wire

// The methods of class connection (10), channel (20) and access (30). Field names are those of the
// specification.

type ConnectionStart struct {
	VersionMajor, VersionMinor byte
	ServerProperties           Table
	Mechanisms, Locales        []byte
}

func (*ConnectionStart) ID() MethodID { return IDConnectionStart }
func (m *ConnectionStart) walk(c *codec) {
	c.octet(&m.VersionMajor)
	c.octet(&m.VersionMinor)
	c.table(&m.ServerProperties)
	c.longstr(&m.Mechanisms)
	c.longstr(&m.Locales)
}

type ConnectionStartOk struct {
	ClientProperties Table
	Mechanism        string
	Response         []byte
	Locale           string
}

func (*ConnectionStartOk) ID() MethodID { return IDConnectionStartOk }
func (m *ConnectionStartOk) walk(c *codec) {
	c.table(&m.ClientProperties)
	c.shortstr(&m.Mechanism)
	c.longstr(&m.Response)
	c.shortstr(&m.Locale)
}

type ConnectionSecure struct{ Challenge []byte }

func (*ConnectionSecure) ID() MethodID    { return IDConnectionSecure }
func (m *ConnectionSecure) walk(c *codec) { c.longstr(&m.Challenge) }

type ConnectionSecureOk struct{ Response []byte }

func (*ConnectionSecureOk) ID() MethodID    { return IDConnectionSecureOk }
func (m *ConnectionSecureOk) walk(c *codec) { c.longstr(&m.Response) }

// Tuning is the three values that connection.tune offers and connection.tune-ok sets.
type Tuning struct {
	ChannelMax uint16
	FrameMax   uint32
	Heartbeat  uint16 // seconds
}

func (m *Tuning) walk(c *codec) {
	c.short(&m.ChannelMax)
	c.long(&m.FrameMax)
	c.short(&m.Heartbeat)
}

type ConnectionTune struct{ Tuning }

func (*ConnectionTune) ID() MethodID { return IDConnectionTune }

type ConnectionTuneOk struct{ Tuning }

func (*ConnectionTuneOk) ID() MethodID { return IDConnectionTuneOk }

type ConnectionOpen struct{ VirtualHost string }

func (*ConnectionOpen) ID() MethodID { return IDConnectionOpen }
func (m *ConnectionOpen) walk(c *codec) {
	c.shortstr(&m.VirtualHost)
	c.reservedShortstr()
	c.bits() // the reserved "insist" bit
}

type ConnectionOpenOk struct{ KnownHosts string }

func (*ConnectionOpenOk) ID() MethodID    { return IDConnectionOpenOk }
func (m *ConnectionOpenOk) walk(c *codec) { c.shortstr(&m.KnownHosts) }

// Closing is the reason for closing a connection or channel, and the method that caused it.
type Closing struct {
	ReplyCode Code
	ReplyText string
	Class     uint16
	Method    uint16
}

func (m *Closing) walk(c *codec) {
	c.short((*uint16)(&m.ReplyCode))
	c.shortstr(&m.ReplyText)
	c.short(&m.Class)
	c.short(&m.Method)
}

type ConnectionClose struct{ Closing }

func (*ConnectionClose) ID() MethodID { return IDConnectionClose }

type ConnectionBlocked struct{ Reason string }

func (*ConnectionBlocked) ID() MethodID    { return IDConnectionBlocked }
func (m *ConnectionBlocked) walk(c *codec) { c.shortstr(&m.Reason) }

type ConnectionUpdateSecret struct {
	NewSecret []byte
	Reason    string
}

func (*ConnectionUpdateSecret) ID() MethodID { return IDConnectionUpdateSecret }
func (m *ConnectionUpdateSecret) walk(c *codec) {
	c.longstr(&m.NewSecret)
	c.shortstr(&m.Reason)
}

type ChannelOpen struct{}

func (*ChannelOpen) ID() MethodID    { return IDChannelOpen }
func (m *ChannelOpen) walk(c *codec) { c.reservedShortstr() }

type ChannelOpenOk struct{ reserved []byte }

func (*ChannelOpenOk) ID() MethodID    { return IDChannelOpenOk }
func (m *ChannelOpenOk) walk(c *codec) { c.longstr(&m.reserved) }

type ChannelFlow struct{ Active bool }

func (*ChannelFlow) ID() MethodID    { return IDChannelFlow }
func (m *ChannelFlow) walk(c *codec) { c.bits(&m.Active) }

type ChannelFlowOk struct{ Active bool }

func (*ChannelFlowOk) ID() MethodID    { return IDChannelFlowOk }
func (m *ChannelFlowOk) walk(c *codec) { c.bits(&m.Active) }

type ChannelClose struct{ Closing }

func (*ChannelClose) ID() MethodID { return IDChannelClose }

type AccessRequest struct {
	Realm                                   string
	Exclusive, Passive, Active, Write, Read bool
}

func (*AccessRequest) ID() MethodID { return IDAccessRequest }
func (m *AccessRequest) walk(c *codec) {
	c.shortstr(&m.Realm)
	c.bits(&m.Exclusive, &m.Passive, &m.Active, &m.Write, &m.Read)
}

type AccessRequestOk struct{ Ticket uint16 }

func (*AccessRequestOk) ID() MethodID    { return IDAccessRequestOk }
func (m *AccessRequestOk) walk(c *codec) { c.short(&m.Ticket) }
