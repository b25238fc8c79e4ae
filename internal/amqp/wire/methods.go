package wire

// Method is one method with its arguments. Its walk visits the arguments in the order of the
// specification, for reading and for writing.
type Method interface {
	ID() MethodID
	walk(*codec)
}

// MethodID is a class id and a method id.
type MethodID uint32

// Class and Method return the two parts of an id.
func (id MethodID) Class() uint16  { return uint16(id >> 16) }
func (id MethodID) Method() uint16 { return uint16(id) }

// Class ids.
const (
	ClassConnection = 10
	ClassChannel    = 20
	ClassAccess     = 30
	ClassExchange   = 40
	ClassQueue      = 50
	ClassBasic      = 60
	ClassConfirm    = 85
	ClassTx         = 90
)

// Method ids, class in the upper half.
const (
	IDConnectionStart          MethodID = 10<<16 | 10
	IDConnectionStartOk        MethodID = 10<<16 | 11
	IDConnectionSecure         MethodID = 10<<16 | 20
	IDConnectionSecureOk       MethodID = 10<<16 | 21
	IDConnectionTune           MethodID = 10<<16 | 30
	IDConnectionTuneOk         MethodID = 10<<16 | 31
	IDConnectionOpen           MethodID = 10<<16 | 40
	IDConnectionOpenOk         MethodID = 10<<16 | 41
	IDConnectionClose          MethodID = 10<<16 | 50
	IDConnectionCloseOk        MethodID = 10<<16 | 51
	IDConnectionBlocked        MethodID = 10<<16 | 60
	IDConnectionUnblocked      MethodID = 10<<16 | 61
	IDConnectionUpdateSecret   MethodID = 10<<16 | 70
	IDConnectionUpdateSecretOk MethodID = 10<<16 | 71
	IDChannelOpen              MethodID = 20<<16 | 10
	IDChannelOpenOk            MethodID = 20<<16 | 11
	IDChannelFlow              MethodID = 20<<16 | 20
	IDChannelFlowOk            MethodID = 20<<16 | 21
	IDChannelClose             MethodID = 20<<16 | 40
	IDChannelCloseOk           MethodID = 20<<16 | 41
	IDAccessRequest            MethodID = 30<<16 | 10
	IDAccessRequestOk          MethodID = 30<<16 | 11
	IDExchangeDeclare          MethodID = 40<<16 | 10
	IDExchangeDeclareOk        MethodID = 40<<16 | 11
	IDExchangeDelete           MethodID = 40<<16 | 20
	IDExchangeDeleteOk         MethodID = 40<<16 | 21
	IDExchangeBind             MethodID = 40<<16 | 30
	IDExchangeBindOk           MethodID = 40<<16 | 31
	IDExchangeUnbind           MethodID = 40<<16 | 40
	IDExchangeUnbindOk         MethodID = 40<<16 | 51
	IDQueueDeclare             MethodID = 50<<16 | 10
	IDQueueDeclareOk           MethodID = 50<<16 | 11
	IDQueueBind                MethodID = 50<<16 | 20
	IDQueueBindOk              MethodID = 50<<16 | 21
	IDQueuePurge               MethodID = 50<<16 | 30
	IDQueuePurgeOk             MethodID = 50<<16 | 31
	IDQueueDelete              MethodID = 50<<16 | 40
	IDQueueDeleteOk            MethodID = 50<<16 | 41
	IDQueueUnbind              MethodID = 50<<16 | 50
	IDQueueUnbindOk            MethodID = 50<<16 | 51
	IDBasicQos                 MethodID = 60<<16 | 10
	IDBasicQosOk               MethodID = 60<<16 | 11
	IDBasicConsume             MethodID = 60<<16 | 20
	IDBasicConsumeOk           MethodID = 60<<16 | 21
	IDBasicCancel              MethodID = 60<<16 | 30
	IDBasicCancelOk            MethodID = 60<<16 | 31
	IDBasicPublish             MethodID = 60<<16 | 40
	IDBasicReturn              MethodID = 60<<16 | 50
	IDBasicDeliver             MethodID = 60<<16 | 60
	IDBasicGet                 MethodID = 60<<16 | 70
	IDBasicGetOk               MethodID = 60<<16 | 71
	IDBasicGetEmpty            MethodID = 60<<16 | 72
	IDBasicAck                 MethodID = 60<<16 | 80
	IDBasicReject              MethodID = 60<<16 | 90
	IDBasicRecoverAsync        MethodID = 60<<16 | 100
	IDBasicRecover             MethodID = 60<<16 | 110
	IDBasicRecoverOk           MethodID = 60<<16 | 111
	IDBasicNack                MethodID = 60<<16 | 120
	IDConfirmSelect            MethodID = 85<<16 | 10
	IDConfirmSelectOk          MethodID = 85<<16 | 11
	IDTxSelect                 MethodID = 90<<16 | 10
	IDTxSelectOk               MethodID = 90<<16 | 11
	IDTxCommit                 MethodID = 90<<16 | 20
	IDTxCommitOk               MethodID = 90<<16 | 21
	IDTxRollback               MethodID = 90<<16 | 30
	IDTxRollbackOk             MethodID = 90<<16 | 31
)

// newMethod returns an empty method with an id, or nil for an unknown id.
func newMethod(id MethodID) Method {
	switch id {
	case IDConnectionStart:
		return &ConnectionStart{}
	case IDConnectionStartOk:
		return &ConnectionStartOk{}
	case IDConnectionSecure:
		return &ConnectionSecure{}
	case IDConnectionSecureOk:
		return &ConnectionSecureOk{}
	case IDConnectionTune:
		return &ConnectionTune{}
	case IDConnectionTuneOk:
		return &ConnectionTuneOk{}
	case IDConnectionOpen:
		return &ConnectionOpen{}
	case IDConnectionOpenOk:
		return &ConnectionOpenOk{}
	case IDConnectionClose:
		return &ConnectionClose{}
	case IDConnectionBlocked:
		return &ConnectionBlocked{}
	case IDConnectionUpdateSecret:
		return &ConnectionUpdateSecret{}
	case IDChannelOpen:
		return &ChannelOpen{}
	case IDChannelOpenOk:
		return &ChannelOpenOk{}
	case IDChannelFlow:
		return &ChannelFlow{}
	case IDChannelFlowOk:
		return &ChannelFlowOk{}
	case IDChannelClose:
		return &ChannelClose{}
	case IDAccessRequest:
		return &AccessRequest{}
	case IDAccessRequestOk:
		return &AccessRequestOk{}
	case IDExchangeDeclare:
		return &ExchangeDeclare{}
	case IDExchangeDelete:
		return &ExchangeDelete{}
	case IDExchangeBind:
		return &ExchangeBind{}
	case IDExchangeUnbind:
		return &ExchangeUnbind{}
	case IDQueueDeclare:
		return &QueueDeclare{}
	case IDQueueDeclareOk:
		return &QueueDeclareOk{}
	case IDQueueBind:
		return &QueueBind{}
	case IDQueuePurge:
		return &QueuePurge{}
	case IDQueuePurgeOk:
		return &QueuePurgeOk{}
	case IDQueueDelete:
		return &QueueDelete{}
	case IDQueueDeleteOk:
		return &QueueDeleteOk{}
	case IDQueueUnbind:
		return &QueueUnbind{}
	case IDBasicQos:
		return &BasicQos{}
	case IDBasicConsume:
		return &BasicConsume{}
	case IDBasicConsumeOk:
		return &BasicConsumeOk{}
	case IDBasicCancel:
		return &BasicCancel{}
	case IDBasicCancelOk:
		return &BasicCancelOk{}
	case IDBasicPublish:
		return &BasicPublish{}
	case IDBasicReturn:
		return &BasicReturn{}
	case IDBasicDeliver:
		return &BasicDeliver{}
	case IDBasicGet:
		return &BasicGet{}
	case IDBasicGetOk:
		return &BasicGetOk{}
	case IDBasicGetEmpty:
		return &BasicGetEmpty{}
	case IDBasicAck:
		return &BasicAck{}
	case IDBasicReject:
		return &BasicReject{}
	case IDBasicRecoverAsync:
		return &BasicRecoverAsync{}
	case IDBasicRecover:
		return &BasicRecover{}
	case IDBasicNack:
		return &BasicNack{}
	case IDConfirmSelect:
		return &ConfirmSelect{}
	case IDConnectionCloseOk, IDConnectionUnblocked, IDConnectionUpdateSecretOk, IDChannelCloseOk,
		IDExchangeDeclareOk, IDExchangeDeleteOk, IDExchangeBindOk, IDExchangeUnbindOk, IDQueueBindOk, IDQueueUnbindOk,
		IDBasicQosOk, IDBasicRecoverOk, IDConfirmSelectOk,
		IDTxSelect, IDTxSelectOk, IDTxCommit, IDTxCommitOk, IDTxRollback, IDTxRollbackOk:
		return Bare(id)
	}
	return nil
}

// MethodIDOf reads the ids at the start of a method frame's payload.
func MethodIDOf(payload []byte) (MethodID, error) {
	if len(payload) < 4 {
		return 0, Errorf(CodeFrameError, "cannot decode %s", octets(payload))
	}
	return MethodID(payload[0])<<24 | MethodID(payload[1])<<16 | MethodID(payload[2])<<8 | MethodID(payload[3]), nil
}

// ParseMethod parses the payload of a method frame. Bytes that are left over are an error. The
// method keeps no part of payload.
func ParseMethod(payload []byte) (Method, error) {
	id, err := MethodIDOf(payload)
	if err != nil {
		return nil, err
	}
	m := newMethod(id)
	if m == nil {
		return nil, unknownMethod(id)
	}
	c := codec{b: payload[4:]}
	m.walk(&c)
	if c.err != nil {
		return nil, Errorf(CodeFrameError, "cannot decode %s: %v", octets(payload), c.err)
	}
	if len(c.b) != 0 {
		return nil, Errorf(CodeFrameError, "cannot decode %s: %d bytes too many", octets(payload), len(c.b))
	}
	return m, nil
}

func unknownMethod(id MethodID) error {
	switch id.Class() {
	case ClassConnection, ClassChannel, ClassAccess, ClassExchange, ClassQueue, ClassBasic, ClassConfirm, ClassTx:
		return Errorf(CodeNotImplemented, "unknown method %d of class %d", id.Method(), id.Class())
	}
	return Errorf(CodeCommandInvalid, "unknown class %d", id.Class())
}

// AppendMethod appends a method frame.
func AppendMethod(dst []byte, channel uint16, m Method) []byte {
	start := len(dst)
	c := codec{b: beginFrame(dst, FrameMethod, channel), w: true}
	id := uint32(m.ID())
	c.long(&id)
	m.walk(&c)
	return endFrame(c.b, start)
}

// Bare is a method without arguments.
type Bare MethodID

func (m Bare) ID() MethodID { return MethodID(m) }
func (Bare) walk(*codec)    {}
