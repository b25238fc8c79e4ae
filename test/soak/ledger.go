//go:build linux

package main

import (
	"fmt"
	"sync"
	"time"
)

// The known states of a message.
const (
	confirmed = 1 << iota // the server said yes
	refused               // it said no
	maybe                 // its answer was lost, and it is not published again
	seen                  // delivered at least once
	ackSent               // an ack, or a nack to the dead-letter queue, was sent
	lapses                // it may disappear by a rule of its queue: it has a TTL, or its queue is deleted
	final                 // its ack was confirmed
	parked                // a nack to the dead-letter queue was confirmed
	doubtful              // given up while its dedup id was still valid; it may be stored twice
)

// item is the state of one message. Times are nanoseconds since the run began.
type item struct {
	state     uint16
	published int64 // time of the first publish call
	returned  int64 // time of the confirming answer
	notBefore int64 // 0: not delayed
	ended     int64 // when it became final; before that, when it was last settled or its answer was lost
}

// counts reports whether the message still needs an ack.
func (it *item) counts() bool { return it.state&(confirmed|final|lapses) == confirmed }

// stream is the messages that one publisher sends to one queue in one group.
type stream struct {
	id      uint32
	queue   string
	ordered bool // its group delivers one message at a time, in order
	base    uint32
	items   []item // of the numbers base+1, base+2 …
	closed  bool   // no more messages are published
	gone    bool   // its queue was deleted: its messages may be lost
	top     uint32 // the highest delivered number
	topAt   int64  // time of that delivery
}

func (s *stream) at(seq uint32) *item {
	if seq <= s.base || seq-s.base > uint32(len(s.items)) {
		return nil
	}
	return &s.items[seq-s.base-1]
}

// How long the ledger keeps finished messages, and messages that will never finish.
const (
	keepFinal = 8 * time.Second  // after the confirmed ack
	keepOpen  = 45 * time.Second // after a lost answer; unsettled messages come back much sooner
	overdue   = 5 * time.Minute  // after the confirm, without an ack: the message will not come any more
)

// ledger has every stream and judges the reports. All methods are safe for use by many goroutines.
type ledger struct {
	began time.Time

	mu       sync.Mutex
	streams  map[uint32]*stream
	last     uint32
	aside    map[ref]bool // messages with an unknown outcome, dropped from their streams
	findings []string
	count    tally
	open     int64 // number of confirmed messages that are not final
}

type ref struct {
	stream, seq uint32
}

// tally is the counts for the report.
type tally struct {
	Published, Confirmed, Deliveries, Acked, Redelivered, DeadLettered, Duplicates, Refused, Unknown int64
	Lost, Doubled, Disorder, Other                                                                   int64
	Streams                                                                                          int64
}

func (t tally) broken() int64 { return t.Lost + t.Doubled + t.Disorder + t.Other }

func newLedger() *ledger {
	return &ledger{began: time.Now(), streams: map[uint32]*stream{}, aside: map[ref]bool{}}
}

func (l *ledger) now() int64 { return int64(time.Since(l.began)) }

// maxFindings limits the findings that are kept as text; all are counted.
const maxFindings = 40

func (l *ledger) finding(count *int64, format string, args ...any) {
	*count++
	if len(l.findings) < maxFindings {
		l.findings = append(l.findings, fmt.Sprintf("%s: %s", time.Duration(l.now()).Round(time.Millisecond), fmt.Sprintf(format, args...)))
	}
}

// report records a broken promise that is not visible in a message.
func (l *ledger) report(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finding(&l.count.Other, format, args...)
}

// stream opens a new stream.
func (l *ledger) stream(queue string, ordered bool) *stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	s := &stream{id: l.last, queue: queue, ordered: ordered}
	l.streams[s.id] = s
	l.count.Streams++
	return s
}

// next numbers a message that will be published. delay and lapses say which rules apply to it.
func (l *ledger) next(s *stream, delay time.Duration, ttl bool) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	it := item{published: l.now()}
	if delay > 0 {
		it.notBefore = it.published + int64(delay)
	}
	if ttl {
		it.state |= lapses
	}
	s.items = append(s.items, it)
	l.count.Published++
	return s.base + uint32(len(s.items))
}

// published records the answer to a publish: confirmed, refused or maybe.
func (l *ledger) published(s *stream, seq uint32, outcome uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	it := s.at(seq)
	if it == nil || it.state&(confirmed|refused|maybe) != 0 {
		return
	}
	it.state |= outcome
	switch now := l.now(); outcome {
	case confirmed:
		it.returned = now
		l.count.Confirmed++
		if it.counts() {
			l.open++
		}
	case maybe:
		it.ended = now
		it.state |= doubtful
		l.count.Unknown++
	case refused:
		it.ended = now
		l.count.Refused++
	}
}

// close says that no more messages are published to a stream.
func (l *ledger) close(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.closed = true
}

// discard says that a queue is being deleted with its messages.
func (l *ledger) discard(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.closed, s.gone = true, true
}

// hold is one delivery that a consumer has.
type hold struct {
	stream, seq uint32
	published   int64
}

// delivered records a delivery that left the server after the moment after, from a queue or, with
// dead, from its dead-letter queue. It reports whether it is the message's first delivery.
func (l *ledger) delivered(h hold, after int64, dead bool) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.count.Deliveries++
	s := l.streams[h.stream]
	switch {
	case h.stream == 0 || h.stream > l.last:
		l.finding(&l.count.Other, "a message of stream %d came, which nobody published", h.stream)
		return false
	case s == nil || h.seq <= s.base:
		if !l.aside[ref{h.stream, h.seq}] && now-after < int64(keepFinal)/2 {
			l.finding(&l.count.Doubled, "redelivered: message %d of stream %d came again long after its ack was confirmed", h.seq, h.stream)
		}
		return false
	}
	it := s.at(h.seq)
	if it == nil {
		l.finding(&l.count.Other, "message %d of stream %d came, which nobody published", h.seq, h.stream)
		return false
	}
	switch {
	case it.state&(final|doubtful) == final && after > it.ended:
		l.finding(&l.count.Doubled, "redelivered: message %d of stream %d (%s), its ack was confirmed %v before", h.seq, h.stream, s.queue, time.Duration(after-it.ended))
	case it.state&(parked|doubtful) == parked && !dead && after > it.ended:
		l.finding(&l.count.Doubled, "redelivered: message %d of stream %d (%s), it went to the dead-letter queue for certain", h.seq, h.stream, s.queue)
	case it.state&refused != 0:
		l.finding(&l.count.Other, "message %d of stream %d (%s) was refused, and came", h.seq, h.stream, s.queue)
	case it.notBefore > 0 && now < it.notBefore-int64(50*time.Millisecond) && it.state&seen == 0:
		l.finding(&l.count.Other, "message %d of stream %d (%s) came %v before its delay was over", h.seq, h.stream, s.queue, time.Duration(it.notBefore-now))
	}
	if s.ordered && !dead {
		l.order(s, h.seq, it, after)
	}
	first = it.state&seen == 0
	if !first {
		l.count.Redelivered++
	}
	it.state |= seen
	switch {
	case dead: // the nack to this queue succeeded, although its answer may still be missing
		if it.state&(parked|final) == 0 {
			it.state, it.ended = it.state&^ackSent|parked, now
		}
	case it.state&(final|ackSent) == ackSent && after > it.ended:
		it.state &^= ackSent // the ack did not arrive: the message was delivered again
	}
	if s.ordered && h.seq > s.top && !dead {
		s.top, s.topAt = h.seq, now
	}
	return first
}

// order checks a delivery of a group that delivers one message at a time. All messages that were
// confirmed before its publish must be finished. No later message may have been delivered before
// it.
func (l *ledger) order(s *stream, seq uint32, it *item, after int64) {
	if seq < s.top && after > s.topAt && it.state&(ackSent|parked|doubtful) == 0 {
		l.finding(&l.count.Disorder, "order: message %d of stream %d (%s) came after message %d of the same group", seq, s.id, s.queue, s.top)
		return
	}
	for n := s.base + 1; n < seq; n++ {
		if e := s.at(n); e.state&confirmed != 0 && e.returned <= it.published && e.state&(ackSent|final|parked|lapses) == 0 {
			l.finding(&l.count.Disorder, "order: message %d of stream %d (%s) came before message %d of the same group was settled", seq, s.id, s.queue, n)
			return
		}
	}
}

// settling says that an ack, or a nack to the dead-letter queue, will be sent.
func (l *ledger) settling(hs []hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range hs {
		if it := l.item(h); it != nil {
			it.state |= ackSent
			if it.state&final == 0 {
				it.ended = l.now()
			}
		}
	}
}

// acked says that acks of messages were confirmed. A nack to the dead-letter queue does not count:
// the message continues there.
func (l *ledger) acked(hs []hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, h := range hs {
		it := l.item(h)
		if it == nil || it.state&final != 0 {
			continue
		}
		if it.counts() {
			l.open--
		}
		it.state |= final
		it.ended = now
		l.count.Acked++
	}
}

// deadLettered says that messages certainly went to the dead-letter queue: they must come out of
// it.
func (l *ledger) deadLettered(hs []hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, h := range hs {
		l.count.DeadLettered++
		if it := l.item(h); it != nil && it.state&final == 0 {
			it.state = it.state&^ackSent | parked
			it.ended = now
		}
	}
}

// duplicate counts a dedup id that was sent again on purpose.
func (l *ledger) duplicate(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Duplicates += int64(n)
}

func (l *ledger) item(h hold) *item {
	if s := l.streams[h.stream]; s != nil {
		return s.at(h.seq)
	}
	return nil
}

// sweep drops finished messages. It is called about once a second.
func (l *ledger) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for id, s := range l.streams {
		n := 0
		for n < len(s.items) {
			it := &s.items[n]
			quiet := now - max(it.ended, it.returned, it.published)
			switch {
			case it.state&final != 0 && now-it.ended > int64(keepFinal) && it.state&(confirmed|maybe|refused) != 0,
				it.state&refused != 0 && quiet > int64(keepFinal):
			case it.state&confirmed != 0 && quiet > int64(overdue) && it.state&ackSent == 0:
				if it.counts() && !s.gone {
					l.finding(&l.count.Lost, "lost or stuck: message %d of stream %d (%s) was confirmed %v ago and not acked", s.base+uint32(n)+1, s.id, s.queue, time.Duration(now-it.returned))
				}
				l.putAside(s, n)
			case s.gone && quiet > int64(keepFinal) && it.state&(confirmed|maybe|refused) != 0,
				it.state&(lapses|maybe|ackSent) != 0 && quiet > int64(keepOpen):
				l.putAside(s, n)
			default:
				goto kept
			}
			n++
		}
	kept:
		if n > 0 {
			s.base += uint32(n)
			s.items = append(s.items[:0], s.items[n:]...)
			if cap(s.items) > 4*len(s.items)+64 {
				s.items = append([]item(nil), s.items...)
			}
		}
		if s.closed && len(s.items) == 0 {
			delete(l.streams, id)
		}
	}
}

// putAside records a message that may or may not still come. The n-th item of a stream is about to
// be dropped.
func (l *ledger) putAside(s *stream, n int) {
	it := &s.items[n]
	if it.state&final != 0 {
		return
	}
	if it.counts() {
		l.open--
	}
	if !s.gone && it.state&lapses == 0 { // a deleted queue delivers nothing, and no expired message comes so late
		l.aside[ref{s.id, s.base + uint32(n) + 1}] = true
	}
}

// finish judges the open messages when the queues are empty: confirmed messages that were never
// acked are lost.
func (l *ledger) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		if s.gone {
			continue
		}
		for i := range s.items {
			it := &s.items[i]
			if it.state&confirmed == 0 || it.state&(final|ackSent|lapses) != 0 {
				continue
			}
			what := "never delivered"
			if it.state&seen != 0 {
				what = "delivered, never acked, and the queue is empty"
			}
			l.finding(&l.count.Lost, "lost: message %d of stream %d (%s): confirmed at %v, %s", s.base+uint32(i)+1, s.id, s.queue,
				time.Duration(it.returned).Round(time.Millisecond), what)
		}
	}
}

// pending returns how many messages are confirmed and not known to be acked, and how many items the
// ledger has.
func (l *ledger) pending() (open int64, items int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		items += len(s.items)
	}
	return l.open, items
}

// totals returns the counts so far.
func (l *ledger) totals() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// words returns the findings.
func (l *ledger) words() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.findings...)
}
