package wire

// The methods of class exchange (40) and queue (50).

type ExchangeDeclare struct {
	Exchange, Type                                 string
	Passive, Durable, AutoDelete, Internal, NoWait bool
	Arguments                                      Table
}

func (*ExchangeDeclare) ID() MethodID { return IDExchangeDeclare }
func (m *ExchangeDeclare) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Exchange)
	c.shortstr(&m.Type)
	c.bits(&m.Passive, &m.Durable, &m.AutoDelete, &m.Internal, &m.NoWait)
	c.table(&m.Arguments)
}

type ExchangeDelete struct {
	Exchange         string
	IfUnused, NoWait bool
}

func (*ExchangeDelete) ID() MethodID { return IDExchangeDelete }
func (m *ExchangeDelete) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Exchange)
	c.bits(&m.IfUnused, &m.NoWait)
}

// ExchangeBinding has the fields of exchange.bind and exchange.unbind.
type ExchangeBinding struct {
	Destination, Source, RoutingKey string
	NoWait                          bool
	Arguments                       Table
}

func (m *ExchangeBinding) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Destination)
	c.shortstr(&m.Source)
	c.shortstr(&m.RoutingKey)
	c.bits(&m.NoWait)
	c.table(&m.Arguments)
}

type ExchangeBind struct{ ExchangeBinding }

func (*ExchangeBind) ID() MethodID { return IDExchangeBind }

type ExchangeUnbind struct{ ExchangeBinding }

func (*ExchangeUnbind) ID() MethodID { return IDExchangeUnbind }

type QueueDeclare struct {
	Queue                                           string
	Passive, Durable, Exclusive, AutoDelete, NoWait bool
	Arguments                                       Table
}

func (*QueueDeclare) ID() MethodID { return IDQueueDeclare }
func (m *QueueDeclare) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Queue)
	c.bits(&m.Passive, &m.Durable, &m.Exclusive, &m.AutoDelete, &m.NoWait)
	c.table(&m.Arguments)
}

type QueueDeclareOk struct {
	Queue                   string
	MessageCount, Consumers uint32
}

func (*QueueDeclareOk) ID() MethodID { return IDQueueDeclareOk }
func (m *QueueDeclareOk) walk(c *codec) {
	c.shortstr(&m.Queue)
	c.long(&m.MessageCount)
	c.long(&m.Consumers)
}

type QueueBind struct {
	Queue, Exchange, RoutingKey string
	NoWait                      bool
	Arguments                   Table
}

func (*QueueBind) ID() MethodID { return IDQueueBind }
func (m *QueueBind) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Queue)
	c.shortstr(&m.Exchange)
	c.shortstr(&m.RoutingKey)
	c.bits(&m.NoWait)
	c.table(&m.Arguments)
}

type QueueUnbind struct {
	Queue, Exchange, RoutingKey string
	Arguments                   Table
}

func (*QueueUnbind) ID() MethodID { return IDQueueUnbind }
func (m *QueueUnbind) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Queue)
	c.shortstr(&m.Exchange)
	c.shortstr(&m.RoutingKey)
	c.table(&m.Arguments)
}

type QueuePurge struct {
	Queue  string
	NoWait bool
}

func (*QueuePurge) ID() MethodID { return IDQueuePurge }
func (m *QueuePurge) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Queue)
	c.bits(&m.NoWait)
}

type QueuePurgeOk struct{ MessageCount uint32 }

func (*QueuePurgeOk) ID() MethodID    { return IDQueuePurgeOk }
func (m *QueuePurgeOk) walk(c *codec) { c.long(&m.MessageCount) }

type QueueDelete struct {
	Queue                     string
	IfUnused, IfEmpty, NoWait bool
}

func (*QueueDelete) ID() MethodID { return IDQueueDelete }
func (m *QueueDelete) walk(c *codec) {
	c.reservedShort()
	c.shortstr(&m.Queue)
	c.bits(&m.IfUnused, &m.IfEmpty, &m.NoWait)
}

type QueueDeleteOk struct{ MessageCount uint32 }

func (*QueueDeleteOk) ID() MethodID    { return IDQueueDeleteOk }
func (m *QueueDeleteOk) walk(c *codec) { c.long(&m.MessageCount) }
