package fenced

import (
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// item is an append that was not called back: an entry or an S record.
type item struct {
	kind        Kind
	data        []byte
	done        func(at uint64, err error)
	first, last uint64 // its blobs' numbers in the present epoch; 0: it was not sent in this epoch
	sent        bool   // it was sent in some epoch
}

// writer is the state of an owner. Only turn uses it.
//
//	items   │ done │ confirmed, but not those before │ sent │ waits │
//	                ▲ rule.n                          ▲ sent
type writer struct {
	items []*item // oldest first
	next  int     // the first item that is not sent as a whole
	part  int     // the first blob of that item that is not sent

	epoch   uint64
	sent    uint64 // number of the newest blob that was sent in this epoch
	done    uint64 // all blobs up to this number are durable
	rule    rule   // state after the position scanned
	scanned uint64
	acked   map[uint64]bool // confirmed blobs after done
	sizes   []int64         // sizes of the blobs after done that were sent
	bytes   int64           // their sum

	heard    time.Duration // time of the newest answer, or of the first blob in flight
	progress time.Duration // time of the newest durable blob, or of the first blob that waits for one
	trouble  bool          // a resync is needed before the next blob
	retry    time.Duration // time of the next try of a resync
	pause    time.Duration
	scratch  []byte
}

// begin begins an epoch. Nothing is sent in it.
func (w *writer) begin(epoch uint64) {
	for _, it := range w.items {
		it.first, it.last = 0, 0
	}
	w.next, w.part, w.sent, w.done, w.bytes = 0, 0, 0, 0, 0
	w.sizes, w.acked = w.sizes[:0], map[uint64]bool{}
	w.epoch, w.rule, w.scanned = epoch, rule{epoch: epoch}, epoch
	w.trouble, w.pause = false, 0
}

// turn does all work that can be done now. It returns how long nothing will be left to do unless
// work is called, and whether appends wait at all. Only one goroutine may call it.
func (l *Log) turn() (wait time.Duration, busy bool) {
	l.mu.Lock()
	queue, answers, disturbed, err := l.queue, l.answers, l.disturbed, l.err
	l.queue, l.answers, l.disturbed = nil, nil, false
	l.mu.Unlock()
	w := &l.w
	now := l.o.Clock.Passed()
	if len(w.items) == 0 {
		w.progress = now
	}
	w.items = append(w.items, queue...)
	if err != nil {
		l.refuse(func(*item) error { return err })
		return 0, false
	}
	if err := l.advance(answers, disturbed, now); err != nil {
		l.end(err)
		return 0, false
	}
	switch {
	case len(w.items) == 0:
		return 0, false
	case w.trouble:
		return max(0, w.retry-now), true
	}
	return max(0, w.heard+l.o.Silence-now), true
}

// advance handles answers, resyncs if needed, and sends. An error ends the log.
func (l *Log) advance(answers []Answer, disturbed bool, now time.Duration) error {
	w := &l.w
	if err := l.hear(answers, now); err != nil {
		return err
	}
	if w.done < w.sent && (disturbed || now-w.heard >= l.o.Silence) {
		w.trouble = true
	}
	if w.trouble {
		if now < w.retry {
			return nil
		}
		if err := l.resync(); err != nil || w.trouble {
			return err
		}
		now = l.o.Clock.Passed()
	}
	return l.send(now)
}

// hear handles answers of the stream.
func (l *Log) hear(answers []Answer, now time.Duration) error {
	w := &l.w
	for _, a := range answers {
		if a.Epoch != w.epoch || a.N <= w.done || a.N > w.sent {
			continue // of an earlier epoch, or known already
		}
		w.heard = now
		if f, final := asFinal(a.Err); final {
			return f
		}
		if a.Err != nil || a.At != w.epoch+a.N {
			w.trouble = true
			continue
		}
		w.acked[a.N] = true
	}
	for w.acked[w.done+1] {
		n := w.done + 1
		delete(w.acked, n)
		if w.rule.admit(w.epoch+n, Header{Kind: Blob, Epoch: w.epoch, N: n}) != valid {
			w.trouble = true
			return nil
		}
		w.scanned = w.epoch + n
		l.durable(n, now)
	}
	return nil
}

// durable records that a blob of the present epoch and all before it are durable. It calls back the
// items that are complete.
func (l *Log) durable(n uint64, now time.Duration) {
	w := &l.w
	w.done, w.progress = n, now
	if len(w.sizes) > 0 {
		w.bytes -= w.sizes[0]
		w.sizes = w.sizes[1:]
	}
	l.known.extend(w.epoch, w.epoch+n)
	for len(w.items) > 0 && w.items[0].last != 0 && w.items[0].last <= n {
		it := w.items[0]
		w.items[0] = nil
		w.items = w.items[1:]
		w.next--
		at := w.epoch + it.first
		if it.kind == Blob {
			l.recent.add(at, it.data)
		}
		l.callBack(it, at, nil)
	}
}

func (l *Log) callBack(it *item, at uint64, err error) {
	it.done(at, err)
	l.mu.Lock()
	l.waiting--
	if l.waiting == 0 {
		l.idle.Broadcast()
	}
	l.mu.Unlock()
}

// send sends blobs while the window is open.
func (l *Log) send(now time.Duration) error {
	w := &l.w
	size := l.s.MaxData()
	for w.next < len(w.items) && w.bytes < l.o.Window && len(w.sizes) < maxFlight {
		it := w.items[w.next]
		if len(it.data) > commitlog.MaxEntry {
			if w.next > 0 {
				return nil // the entries before it become durable first
			}
			return &FinalError{wrap(surgetank.CodeTooLarge, fmt.Sprintf("an entry of %d bytes is above the limit of %d", len(it.data), commitlog.MaxEntry))}
		}
		from := w.part * size
		data := it.data[from:min(len(it.data), from+size)]
		h := Header{Kind: it.kind, First: w.part == 0, Last: from+len(data) == len(it.data), Owner: l.owner, Epoch: w.epoch, N: w.sent + 1, Total: uint32(len(it.data))}
		if w.done == w.sent {
			w.heard = now
		}
		w.sent++
		if it.sent = true; h.First {
			it.first = h.N
		}
		w.part++
		if h.Last {
			it.last = h.N
			w.next, w.part = w.next+1, 0
		}
		w.scratch = appendRecord(w.scratch[:0], l.name, h, data)
		w.sizes = append(w.sizes, int64(len(w.scratch)))
		w.bytes += int64(len(w.scratch))
		if err := l.s.Send(h.Epoch, h.N, h.Epoch+h.N-1, w.scratch); err != nil {
			if f, final := asFinal(err); final {
				return f
			}
			w.trouble = true
			return nil
		}
	}
	return nil
}

// errLost ends a log that has another owner.
type errLost struct {
	owner Owner
	at    uint64
}

func (e *errLost) Error() string { return fmt.Sprintf("fenced at %d", e.at) }

// end ends the log with an error. Entries that were sent and have no answer are uncertain.
func (l *Log) end(cause error) {
	of := func(sent bool) error { return l.failed(cause, sent) }
	var lost *errLost
	if errors.As(cause, &lost) {
		of = func(sent bool) error { return l.fencedBy(lost.owner, lost.at, sent) }
		l.o.Logger.Warn("another process owns the log now", "log", l.o.Name, "owner", lost.owner, "position", lost.at)
	} else {
		l.o.Logger.Error("the log failed; it must be opened again", "log", l.o.Name, "error", cause)
	}
	l.mu.Lock()
	l.err = of(false)
	l.w.items = append(l.w.items, l.queue...)
	l.queue = nil
	l.mu.Unlock()
	l.refuse(func(it *item) error { return of(it.sent) })
}

// refuse calls back all items with an error.
func (l *Log) refuse(err func(*item) error) {
	w := &l.w
	for len(w.items) > 0 {
		it := w.items[0]
		w.items = w.items[1:]
		l.callBack(it, 0, err(it))
	}
	w.next, w.part = 0, 0
}

func asFinal(err error) (*FinalError, bool) {
	var f *FinalError
	ok := errors.As(err, &f)
	return f, ok
}

func isFenced(err error) bool { return errors.Is(err, commitlog.ErrFenced) }
