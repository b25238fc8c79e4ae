package session

import (
	"sync"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// outbox is everything that waits for the writer goroutine of one connection: frames, outcomes of
// publishes, and consumers with messages to fetch.
//
// The broker's loop waits for mu: through consumer.notify, and through publishBatch.done. So nobody
// holds mu for long. The sender of a message encodes header and body before it takes mu, and hands
// over the encoded frames by reference. The writer takes all of it in one step, and copies and
// writes without mu.
type outbox struct {
	wake chan struct{} // for the writer; one token

	mu       sync.Mutex
	methods  []byte      // frames without a body
	bodies   []piece     // frames with a body, between them
	size     int         // bytes of methods and bodies
	confirms []*channel  // with outcomes to tell
	nacks    int         // refused publishes among them, which one by one are remembered
	busy     []*consumer // with messages to fetch
	room     sync.Cond   // size and nacks have become smaller, or the connection ends
	deleting bool        // a queue of this connection's consumers is being deleted by it
	cancels  []byte      // their cancels, to be written behind delete-ok
	ending   bool        // no more is delivered
	finished bool        // the writer writes what is left, and ends
	hangUp   bool        // and half-closes the socket then
	broken   error       // the socket failed while writing
}

// piece is the header and body frames of one message. They follow the frames that methods holds up
// to at.
type piece struct {
	at     int
	frames []byte
}

// pieceCost is what a piece counts beside its bytes, so that many small messages are bounded as
// well.
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

// method replaces methods by what was appended to it; the caller holds mu.
func (o *outbox) method(methods []byte) {
	o.size += len(methods) - len(o.methods)
	o.methods = methods
}

// content adds a method that has a message, and the message's encoded frames. The outbox keeps
// frames. The caller holds mu.
func (o *outbox) content(methods, frames []byte) {
	o.method(methods)
	o.bodies = append(o.bodies, piece{len(o.methods), frames})
	o.size += len(frames) + pieceCost
}

// full tells whether replies that the client does not read make its requests wait. The caller holds
// mu.
func (o *outbox) full() bool { return o.size > maxOut || o.nacks > maxNacks }

// taken is what the writer takes out of the outbox at once. The writer gives the memory back at the
// next time.
type taken struct {
	methods []byte
	bodies  []piece
}

// take moves the frames of the outbox to t, whose memory becomes that of the outbox. The caller
// holds mu.
func (o *outbox) take(t *taken) {
	o.methods, t.methods = t.methods[:0], o.methods
	o.bodies, t.bodies = t.bodies[:0], o.bodies
	o.size = 0
	o.room.Broadcast()
}

// offer marks a consumer as one with messages to fetch. It returns false if the consumer is marked
// already. The caller holds mu.
func (o *outbox) offer(cons *consumer) bool {
	if cons.busy {
		return false
	}
	cons.busy = true
	o.busy = append(o.busy, cons)
	return true
}

// settle enters the outcome of a publish; seq 0 is a publish that nobody waits for. The caller
// holds mu and wakes the writer.
func (o *outbox) settle(ch *channel, seq uint64, ok bool) {
	if seq == 0 || ch.closed {
		return
	}
	before := len(ch.confirms.nacks)
	ch.confirms.settle(seq, ok)
	o.nacks += len(ch.confirms.nacks) - before
	if !ch.confirms.listed {
		ch.confirms.listed = true
		o.confirms = append(o.confirms, ch)
	}
}

// close ends a channel: no outcome and no message is added for it any more.
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

// finish lets the writer write what is left and end; with HangUp it half-closes the socket behind
// that.
func (o *outbox) finish(hangUp bool) {
	o.mu.Lock()
	o.finished, o.hangUp = true, hangUp
	o.mu.Unlock()
	o.wakeWriter()
}

// rest gives back the memory of an outbox that is empty. It tells whether the writer is done: the
// connection is finished and all is written.
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

// fail says that the socket cannot be written to any more.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	o.broken = err
	o.room.Broadcast()
	o.mu.Unlock()
}

// deferCancels keeps the cancels of this connection's consumers back until the returned function is
// called. Who deletes the queue of its own consumer gets delete-ok before the cancel: clients close
// the channel at the cancel, and the answer must not be missing then.
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
