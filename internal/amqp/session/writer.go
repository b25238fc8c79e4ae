package session

import (
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

const (
	writeChunk   = 64 << 10  // when the buffer has this many bytes, it is written
	deliverMax   = 512       // messages that are fetched from one consumer at a time
	deliverBytes = 128 << 10 // approximate bytes of bodies that are fetched at a time
	keepBuffer   = 128 << 10 // larger buffers are not kept
	idleBuffer   = 2 << 10   // an idle writer keeps no larger buffer
	idlePieces   = 16        // an idle writer keeps no longer list
)

// scratch is the large memory of a busy writer. Writers borrow it from a pool, because most
// connections are idle at any moment. Kept buffers would be most of their memory.
type scratch struct {
	buf, spare []byte
	got        []surgetank.Delivery
}

var scratches sync.Pool

// borrow gets memory from the pool, if this writer has none.
func (w *writer) borrow() {
	if w.buf == nil {
		if s, ok := scratches.Get().(*scratch); ok {
			w.buf, w.got = s.buf, s.got
			if w.out.methods == nil {
				w.out.methods = s.spare
			}
		}
	}
}

// rest puts the writer's large memory back into the pool. All buffers must be empty.
func (w *writer) rest() {
	if cap(w.tail) > idleBuffer {
		w.tail = nil
	}
	if cap(w.block) > idleBuffer {
		w.block = nil
	}
	if cap(w.out.bodies) > idlePieces {
		w.out.bodies = nil
	}
	if cap(w.buf) <= idleBuffer && cap(w.out.methods) <= idleBuffer && cap(w.got) == 0 {
		return
	}
	s := &scratch{w.buf, w.out.methods, w.got}
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	if cap(s.spare) > keepBuffer {
		s.spare = nil
	}
	w.buf, w.out.methods, w.got = nil, nil, nil
	if s.buf != nil {
		scratches.Put(s)
	}
}

// writer is the state of the writer goroutine.
type writer struct {
	c       *Conn
	buf     []byte // encoded bytes that are not written yet
	out     moved  // result of the last move from the outbox
	block   []byte // property block of the present message
	tail    []byte // encoded outcomes of publishes
	got     []surgetank.Delivery
	busy    []*consumer
	told    []*channel
	written bool // something was written since the last heartbeat tick
	err     error
}

// writeLoop writes replies, confirms and deliveries until the connection is finished or broken.
// Replies and confirms are written before deliveries that were fetched later. So a consumer's
// consume-ok precedes its first message.
func (c *Conn) writeLoop() {
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
		case <-c.out.wake:
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
			c.out.fail(w.err)
			c.nc.Close() // the reader notices and ends the connection
			return
		}
		done, hangUp := c.out.rest()
		if done {
			if hangUp {
				halfClose(c.nc)
			}
			return
		}
		w.rest()
	}
}

// round writes what is ready now, and reports whether there may be more.
func (w *writer) round() (more bool) {
	o := &w.c.out
	o.mu.Lock()
	if o.size == 0 && len(o.confirms) == 0 && len(o.busy) == 0 {
		o.mu.Unlock()
		return false
	}
	o.moveTo(&w.out)
	w.told, o.confirms = o.confirms, w.told[:0]
	w.busy, o.busy = o.busy, w.busy[:0]
	for _, cons := range w.busy {
		cons.busy = false
	}
	w.tail = w.tail[:0]
	for _, ch := range w.told {
		ch.confirms.listed = false
		o.nacks -= len(ch.confirms.nacks)
		if !ch.closed {
			w.tail = ch.confirms.append(w.tail, ch.id)
		}
	}
	o.mu.Unlock()
	clear(w.told)
	w.frames()
	w.put(w.tail)
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

// frames encodes the data from the outbox.
func (w *writer) frames() {
	at := 0
	for i := range w.out.bodies {
		p := &w.out.bodies[i]
		w.put(w.out.methods[at:p.at])
		w.put(p.frames)
		at, p.frames = p.at, nil
	}
	w.put(w.out.methods[at:])
	w.out.methods, w.out.bodies = w.out.methods[:0], w.out.bodies[:0]
}

// put adds frames to the bytes to write. Large frames are not copied.
func (w *writer) put(frames []byte) {
	if len(frames) < writeChunk {
		if w.buf = append(w.buf, frames...); len(w.buf) >= writeChunk {
			w.write()
		}
		return
	}
	w.write()
	kept := w.buf
	w.buf = frames
	w.write()
	w.buf = kept
}

// write writes buf to the socket and empties it.
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

// deliver fetches waiting messages of a consumer, enters them in the ledger, and encodes them.
func (w *writer) deliver(cons *consumer) {
	if w.err != nil {
		return
	}
	c, ch := w.c, cons.ch
	ch.delivering.Lock()
	if cons.stopped {
		ch.delivering.Unlock()
		return
	}
	var tag uint64
	var err error
	w.got, tag, err = cons.fetch(w.got[:0])
	if err != nil {
		cons.stopped = true
		ch.delivering.Unlock()
		c.lost(cons, err)
		return
	}
	if len(w.got) == 0 {
		ch.delivering.Unlock()
		return
	}
	c.out.mu.Lock()
	c.out.offer(cons)    // there may be more
	c.out.moveTo(&w.out) // the deliveries of a basic.get have earlier tags
	c.out.mu.Unlock()
	ch.delivering.Unlock()
	w.frames()
	quorum := cons.q.Attrs().Quorum
	for i := range w.got {
		d := &w.got[i]
		exchange, key, block, scratch := translate.Outgoing(d, quorum, w.block)
		w.block = scratch
		w.buf = wire.AppendDeliver(w.buf, ch.id, cons.tag, tag+uint64(i), d.Redelivered, exchange, key)
		w.buf = wire.AppendHeader(w.buf, ch.id, len(d.Body), block)
		w.body(ch.id, d.Body)
	}
	clear(w.got)
}

// body encodes a body. If the body would make the buffer too large, it writes the buffer first.
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

// replenish adds credit to a consumer without prefetch for the written messages. If its channel has
// too many unacknowledged deliveries, it adds none.
func (w *writer) replenish(cons *consumer) {
	if !cons.manual || w.err != nil {
		return
	}
	if n := cons.ch.ledger.owed(cons, w.c.srv.limits.MaxUnacked); n > 0 {
		cons.sub.AddCredit(n)
	}
}
