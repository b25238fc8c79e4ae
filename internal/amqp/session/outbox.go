package session

import (
	"sync"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// outbox has everything that the writer of one connection must still write: frames, outcomes of
// publishes, and consumers with waiting messages.
//
// The broker's loop locks mu in consumer.notify and publishBatch.done, so no goroutine holds mu for
// long. The sender of a message encodes header and body before it locks mu, and adds the encoded
// frames by reference. The writer moves everything out in one step, and copies and writes without
// mu.
type outbox struct {
	wake chan struct{} // wakes the writer; one token

	mu       sync.Mutex
	methods  []byte      // frames without a body
	bodies   []piece     // frames with a body, each at its position between the methods
	size     int         // bytes of methods and bodies
	confirms []*channel  // channels with outcomes that the client does not know
	nacks    int         // number of refused publishes in confirms; each uses memory
	busy     []*consumer // consumers with messages to fetch
	room     sync.Cond   // signalled when size or nacks shrink, and when the connection ends
	deleting bool        // this connection is deleting the queue of one of its consumers
	cancels  []byte      // cancels of the deleted queue's consumers, to be written after delete-ok
	ending   bool        // nothing more is delivered
	finished bool        // the writer writes the rest and ends
	hangUp   bool        // when it ends, the writer half-closes the socket
	broken   error       // the error of a failed write
}

// piece is the header and body frames of one message. They follow the frames in methods[:at].
type piece struct {
	at     int
	frames []byte
}

// pieceCost is added to the bytes of each piece, so that many small messages are bounded too.
const pieceCost = 64

func (o *outbox) init() {
	o.wake = make(chan struct{}, 1)
	o.room.L = &o.mu
}

func (o *outbox) wakeWriter() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// send adds a method frame.
func (o *outbox) send(channel uint16, m wire.Method) {
	o.mu.Lock()
	o.method(wire.AppendMethod(o.methods, channel, m))
	o.mu.Unlock()
	o.wakeWriter()
}

// method sets methods to the result of an append. The caller holds mu.
func (o *outbox) method(methods []byte) {
	o.size += len(methods) - len(o.methods)
	o.methods = methods
}

// content adds a method with a message, and the message's encoded frames. The outbox keeps the
// slice frames. The caller holds mu.
func (o *outbox) content(methods, frames []byte) {
	o.method(methods)
	o.bodies = append(o.bodies, piece{len(o.methods), frames})
	o.size += len(frames) + pieceCost
}

// full reports whether the client has too many unread replies, so that its requests must wait. The
// caller holds mu.
func (o *outbox) full() bool { return o.size > maxOut || o.nacks > maxNacks }

// moved is the data that the writer moves out of the outbox in one step. The next step returns its
// memory to the outbox.
type moved struct {
	methods []byte
	bodies  []piece
}

// moveTo moves the frames of the outbox to t. The outbox gets t's old memory. The caller holds mu.
func (o *outbox) moveTo(t *moved) {
	o.methods, t.methods = t.methods[:0], o.methods
	o.bodies, t.bodies = t.bodies[:0], o.bodies
	o.size = 0
	o.room.Broadcast()
}

// offer marks a consumer as one with messages to fetch. It returns false if the consumer is already
// marked. The caller holds mu.
func (o *outbox) offer(cons *consumer) bool {
	if cons.busy {
		return false
	}
	cons.busy = true
	o.busy = append(o.busy, cons)
	return true
}

// addOutcome enters the outcome of a publish. seq 0 is a publish without a confirm. The caller
// holds mu and wakes the writer.
func (o *outbox) addOutcome(ch *channel, seq uint64, ok bool) {
	o.outcome(ch, seq, func() { ch.confirms.addOutcome(seq, ok) })
}

// outcome calls enter to change the channel's confirms, and lists the channel for the writer.
func (o *outbox) outcome(ch *channel, seq uint64, enter func()) {
	if seq == 0 || ch.closed {
		return
	}
	before := len(ch.confirms.nacks)
	enter()
	o.nacks += len(ch.confirms.nacks) - before
	if !ch.confirms.listed {
		ch.confirms.listed = true
		o.confirms = append(o.confirms, ch)
	}
}

// close ends a channel. After it, no outcome and no message is added for the channel.
func (o *outbox) close(ch *channel) {
	o.mu.Lock()
	ch.closed = true
	o.mu.Unlock()
}

// end stops deliveries to the connection.
func (o *outbox) end() {
	o.mu.Lock()
	o.ending = true
	o.mu.Unlock()
}

// finish lets the writer write the rest and end. If hangUp is true, the writer half-closes the
// socket at its end.
func (o *outbox) finish(hangUp bool) {
	o.mu.Lock()
	o.finished, o.hangUp = true, hangUp
	o.mu.Unlock()
	o.wakeWriter()
}

// rest frees the memory of an empty outbox. It reports whether the writer is done: the connection
// is finished and everything is written.
func (o *outbox) rest() (done, hangUp bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size > 0 {
		return false, false
	}
	if cap(o.methods) > idleBuffer {
		o.methods = nil
	}
	if cap(o.bodies) > idlePieces {
		o.bodies = nil
	}
	return o.finished, o.hangUp
}

// fail records that a write to the socket failed.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	o.broken = err
	o.room.Broadcast()
	o.mu.Unlock()
}

// deferCancels delays the cancels of this connection's consumers until the returned function is
// called. If a client deletes the queue of its own consumer, delete-ok must precede the cancel.
// Clients close the channel at the cancel, and would miss a later answer.
func (o *outbox) deferCancels() (release func()) {
	o.mu.Lock()
	o.deleting = true
	o.mu.Unlock()
	return func() {
		o.mu.Lock()
		o.method(append(o.methods, o.cancels...))
		o.deleting, o.cancels = false, nil
		o.mu.Unlock()
		o.wakeWriter()
	}
}

// cancelled tells the client that the server has cancelled a consumer.
func (o *outbox) cancelled(ch *channel, tag string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch m := (&wire.BasicCancel{ConsumerTag: tag, NoWait: true}); {
	case ch.closed || o.ending:
	case o.deleting:
		o.cancels = wire.AppendMethod(o.cancels, ch.id, m)
	default:
		o.method(wire.AppendMethod(o.methods, ch.id, m))
	}
}
