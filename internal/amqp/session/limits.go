package session

import (
	"time"

	"github.com/surgetank/surgetank"
)

// Limits bound the memory and the number of things that clients can use. Zero fields have the
// values of DefaultLimits.
type Limits struct {
	FrameMax   uint32        // bytes of a frame; offered to clients, at least 4096
	ChannelMax uint16        // channels of a connection
	Heartbeat  time.Duration // offered to clients; whole seconds; negative: none
	MaxMessage int64         // bytes of a body
	// MaxBodies bounds the bytes of all incomplete bodies and uncommitted transactions together. 0
	// means the larger of 256 MiB and the size of four messages.
	MaxBodies int64
	// BodyWait is how long a publisher waits for room in MaxBodies. After it, the connection with
	// the largest reservation is closed.
	BodyWait time.Duration

	Handshake             time.Duration // time from accepting to connection.open
	MaxConnections        int
	MaxBeforeLogin        int // connections that have not logged in
	MaxBeforeLoginPerPeer int // connections from one address that have not logged in; loopback has no such limit

	MaxConsumers           int           // consumers of a channel
	MaxConnectionConsumers int           // consumers of a connection, over all its channels
	MaxUnacked             int           // unacked deliveries of a channel without prefetch; no more are sent
	MaxExchanges           int           // exchanges of a virtual host
	MaxBindings            int           // bindings of an exchange
	AckTimeout             time.Duration // how long a delivery may wait for its ack; negative: forever
	CloseTimeout           time.Duration // how long a closing peer may take to answer
	// DeliverWindow is how many messages are handed to a consumer without prefetch before they are
	// written.
	DeliverWindow int
}

// DefaultLimits are RabbitMQ's limits where RabbitMQ has one.
var DefaultLimits = Limits{
	FrameMax: 131072, ChannelMax: 2047, Heartbeat: 60 * time.Second, MaxMessage: surgetank.DefaultMaxMessage,
	Handshake: 10 * time.Second, MaxConnections: 1 << 16, MaxBeforeLogin: 1024, MaxBeforeLoginPerPeer: 64,
	MaxConsumers: 8192, MaxConnectionConsumers: 1 << 16, MaxUnacked: 1 << 18, MaxExchanges: 1 << 16, MaxBindings: 1 << 20,
	BodyWait: 5 * time.Second, AckTimeout: 30 * time.Minute, CloseTimeout: 5 * time.Second, DeliverWindow: 2048,
}

// WithDefaults returns the limits with DefaultLimits in place of zero fields.
func (l Limits) WithDefaults() Limits {
	d := DefaultLimits
	def(&l.FrameMax, d.FrameMax)
	def(&l.ChannelMax, d.ChannelMax)
	def(&l.Heartbeat, d.Heartbeat)
	def(&l.MaxMessage, d.MaxMessage)
	def(&l.MaxBodies, max(256<<20, 4*l.MaxMessage))
	def(&l.BodyWait, d.BodyWait)
	def(&l.Handshake, d.Handshake)
	def(&l.MaxConnections, d.MaxConnections)
	def(&l.MaxBeforeLogin, d.MaxBeforeLogin)
	def(&l.MaxBeforeLoginPerPeer, d.MaxBeforeLoginPerPeer)
	def(&l.MaxConsumers, d.MaxConsumers)
	def(&l.MaxConnectionConsumers, d.MaxConnectionConsumers)
	def(&l.MaxUnacked, d.MaxUnacked)
	def(&l.MaxExchanges, d.MaxExchanges)
	def(&l.MaxBindings, d.MaxBindings)
	def(&l.AckTimeout, d.AckTimeout)
	def(&l.CloseTimeout, d.CloseTimeout)
	def(&l.DeliverWindow, d.DeliverWindow)
	return l
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
