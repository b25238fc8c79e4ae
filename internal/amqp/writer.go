package amqp

import (
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

const (
	writeChunk   = 64 << 10  // written as soon as so much is there
	deliverMax   = 512       // messages fetched from one consumer at a time
	deliverBytes = 128 << 10 // and about as many bytes of bodies
	keepBuffer   = 128 << 10 // larger buffers are not kept
	idleBuffer   = 2 << 10   // nor are larger ones by a writer that has nothing to do
)

// send adds a method frame to what is to be written. Any goroutine may call it.
func (c *conn) send(channel uint16, m wire.Method) {
	c.mu.Lock()
	c.out = wire.AppendMethod(c.out, channel, m)
	c.mu.Unlock()
	c.wakeWriter()
}

func (c *conn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// scratch is the large memory of a writer at work. Writers borrow it, because most connections are idle at any moment, and what each of
// them needed in its last burst would be most of what they hold.
type scratch struct {
	buf, spare []byte
	got        []surgetank.Delivery
}

var scratches sync.Pool

// borrow takes the memory that another writer has given back, if this one has none.
func (w *writer) borrow() {
	if w.buf == nil {
		if s, ok := scratches.Get().(*scratch); ok {
			w.buf, w.got = s.buf, s.got
			if w.spare == nil {
				w.spare = s.spare
			}
		}
	}
}

// rest gives back what is large. Nothing is in it.
func (w *writer) rest() {
	if cap(w.buf) <= idleBuffer && cap(w.spare) <= idleBuffer && cap(w.got) == 0 {
		return
	}
	s := &scratch{w.buf, w.spare, w.got}
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	if cap(s.spare) > keepBuffer {
		s.spare = nil
	}
	w.buf, w.spare, w.got = nil, nil, nil
	if s.buf != nil {
		scratches.Put(s)
	}
}

// writer is the state of the writer goroutine.
type writer struct {
	c       *conn
	buf     []byte // encoded, not yet written
	spare   []byte // the other half of out's double buffer
	got     []surgetank.Delivery
	busy    []*consumer
	told    []*channel
	written bool // since the last heartbeat tick
	err     error
}

// writeLoop writes replies, confirms and deliveries until the connection is finished or broken. Replies and confirms go
// before deliveries that were fetched after them, so that a consumer's consume-ok precedes its first message.
func (c *conn) writeLoop() {
	defer close(c.written)
	w := &writer{c: c}
	var tick <-chan time.Time
	if hb := c.tuned.Heartbeat; hb > 0 {
		t := time.NewTicker(time.Duration(hb) * time.Second / 2)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-c.wake:
			w.borrow()
		case <-tick:
			if !w.written {
				w.buf = wire.AppendHeartbeat(w.buf)
				w.write()
			}
			w.written = false
		}
		for w.round() {
		}
		if w.err != nil {
			c.mu.Lock()
			c.broken = w.err
			c.room.Broadcast()
			c.mu.Unlock()
			c.nc.Close() // the reader sees it and ends the connection
			return
		}
		c.mu.Lock()
		done := c.finished && len(c.out) == 0
		if len(c.out) == 0 && cap(c.out) > idleBuffer {
			c.out = nil
		}
		hangUp := c.hangUp
		c.mu.Unlock()
		if done {
			if hangUp {
				halfClose(c.nc)
			}
			return
		}
		w.rest()
	}
}

// round writes what there is now, once around, and tells whether there may be more.
func (w *writer) round() (more bool) {
	c := w.c
	c.mu.Lock()
	if len(c.out) == 0 && len(c.confirms) == 0 && len(c.busy) == 0 {
		c.mu.Unlock()
		return false
	}
	c.out, w.spare = w.spare[:0], c.out
	w.told, c.confirms = c.confirms, w.told[:0]
	w.busy, c.busy = c.busy, w.busy[:0]
	for _, cons := range w.busy {
		cons.busy = false
	}
	w.buf = append(w.buf, w.spare...)
	for _, ch := range w.told {
		ch.confirms.listed = false
		c.nacks -= len(ch.confirms.nacks)
		if !ch.closed {
			w.buf = ch.confirms.append(w.buf, ch.id)
		}
	}
	c.room.Broadcast()
	c.mu.Unlock()
	clear(w.told)
	for _, cons := range w.busy {
		w.deliver(cons)
		if len(w.buf) >= writeChunk {
			w.write()
		}
		w.replenish(cons)
	}
	clear(w.busy)
	w.write()
	return w.err == nil
}

// write empties buf into the socket.
func (w *writer) write() {
	if len(w.buf) == 0 {
		return
	}
	if w.err == nil {
		_, w.err = w.c.nc.Write(w.buf)
		w.written = true
	}
	w.buf = w.buf[:0]
}

// deliver fetches what a consumer has waiting, enters it among the channel's unacknowledged deliveries, and encodes it.
func (w *writer) deliver(cons *consumer) {
	if w.err != nil {
		return
	}
	c, ch := w.c, cons.ch
	cons.mu.Lock()
	if cons.stopped {
		cons.mu.Unlock()
		return
	}
	var tag uint64
	var err error
	w.got, tag, err = cons.fetch(w.got[:0])
	if err != nil {
		cons.stopped = true
		cons.mu.Unlock()
		c.lost(cons, err)
		return
	}
	if len(w.got) == 0 {
		cons.mu.Unlock()
		return
	}
	c.mu.Lock()
	if !cons.busy { // there may be more
		cons.busy = true
		c.busy = append(c.busy, cons)
	}
	c.mu.Unlock()
	cons.mu.Unlock()
	for i := range w.got {
		d := &w.got[i]
		exchange, key, block := outgoing(d, cons.q.attrs().quorum)
		w.buf = wire.AppendDeliver(w.buf, ch.id, cons.tag, tag+uint64(i), d.Redelivered, exchange, key)
		w.buf = wire.AppendHeader(w.buf, ch.id, len(d.Body), block)
		w.body(ch.id, d.Body)
	}
	clear(w.got)
}

// body encodes a body, writing out on the way what would make the buffer large.
func (w *writer) body(channel uint16, body []byte) {
	frameMax := int(w.c.tuned.FrameMax)
	for len(body) > 0 {
		n := wire.BodyFrame(len(body), frameMax)
		w.buf = wire.AppendFrame(w.buf, wire.FrameBody, channel, body[:n])
		body = body[n:]
		if len(w.buf) >= writeChunk {
			w.write()
		}
	}
}

// replenish gives a consumer without prefetch new credit for what was written, unless its channel has too many
// deliveries that nobody acknowledges.
func (w *writer) replenish(cons *consumer) {
	if !cons.manual || w.err != nil {
		return
	}
	c := w.c
	c.mu.Lock()
	n := cons.takeOwed(c.srv.limits.MaxUnacked)
	c.mu.Unlock()
	if n > 0 {
		cons.sub.AddCredit(n)
	}
}
