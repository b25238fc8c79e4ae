// Package ledger is the journal and the judge of long runs. It judges each report at once. Package
// history finds more, but keeps every call.
//
// # Memory
//
// A run has tens of millions of messages, so nothing is kept about a message longer than necessary.
// A stream is the messages that one publisher sends to one queue in one group. A stream's messages
// are numbered, and the ledger keeps the states of messages with numbers above the stream's base.
// It forgets a message a few seconds after the confirmed ack. From then on the message's number is
// not above the base, and the message must not be delivered again. Messages that stay open for long
// because an answer was lost are listed separately.
//
// # Times
//
// A delivery certainly left the server after a certain moment. Over HTTP, this moment is the start
// of the receive. Over AMQP, it is the start of the last answered request on the same channel. Only
// violations that are certain by these times are findings.
package ledger

import (
	"fmt"
	"sync"
	"time"
)

// The known states of a message. The first three are the outcomes of a publish.
const (
	Confirmed = 1 << iota // the server stored the message
	Refused               // the server refused the message
	Maybe                 // the publish's answer was lost, and the message is not published again
	seen                  // delivered at least once
	ackSent               // an ack, or a nack to the dead-letter queue, was sent
	lapses                // the queue may remove the message: it has a TTL, or its queue is deleted
	final                 // the message's ack was confirmed
	parked                // a nack to the dead-letter queue was confirmed
	doubtful              // no longer repeated while the dedup id was valid; may be stored twice
)

// item is the state of one message. Times are nanoseconds since the run began.
type item struct {
	state     uint16
	published int64 // time of the first publish call
	returned  int64 // time of the confirming answer
	notBefore int64 // 0: not delayed
	ended     int64 // when the message became final; before that, time of the last settlement or lost answer
}

// counts reports whether the message still needs an ack.
func (it *item) counts() bool { return it.state&(Confirmed|final|lapses) == Confirmed }

// Stream is the messages that one publisher sends to one queue in one group.
type Stream struct {
	ID      uint32
	queue   string
	ordered bool // the group delivers one message at a time, in order
	base    uint32
	items   []item // messages number base+1, base+2 …
	closed  bool   // no more messages are published
	gone    bool   // the queue was deleted: its messages may be lost
	top     uint32 // the highest delivered number
	topAt   int64  // time of that delivery
}

func (s *Stream) at(seq uint32) *item {
	if seq <= s.base || seq-s.base > uint32(len(s.items)) {
		return nil
	}
	return &s.items[seq-s.base-1]
}

// How long the ledger keeps finished messages, and messages that will never finish.
const (
	keepFinal = 8 * time.Second  // after the confirmed ack
	keepOpen  = 45 * time.Second // after a lost answer; unsettled messages are delivered again much sooner
	overdue   = 5 * time.Minute  // after the confirm, without an ack: the message will not come any more
)

// Ledger has every stream and judges the reports. All methods are safe for use by many goroutines.
type Ledger struct {
	began time.Time

	mu       sync.Mutex
	streams  map[uint32]*Stream
	last     uint32
	aside    map[ref]bool // messages with an unknown outcome that are no longer in their streams
	findings []string
	count    Tally
	open     int64 // number of confirmed messages that are not final
}

type ref struct {
	stream, seq uint32
}

// Tally is the counts for the report.
type Tally struct {
	Published, Confirmed, Deliveries, Acked, Redelivered, DeadLettered, Duplicates, Refused, Unknown int64
	Lost, Doubled, Disorder, Other                                                                   int64
	Streams                                                                                          int64
}

// Broken returns the number of findings.
func (t Tally) Broken() int64 { return t.Lost + t.Doubled + t.Disorder + t.Other }

// New makes a ledger whose time begins now.
func New() *Ledger {
	return &Ledger{began: time.Now(), streams: map[uint32]*Stream{}, aside: map[ref]bool{}}
}

// Now returns the ledger's time in nanoseconds.
func (l *Ledger) Now() int64 { return int64(time.Since(l.began)) }

// Began returns the time at which the ledger's time begins.
func (l *Ledger) Began() time.Time { return l.began }

// maxFindings limits the findings that are kept as text; all are counted.
const maxFindings = 40

func (l *Ledger) finding(count *int64, format string, args ...any) {
	*count++
	if len(l.findings) < maxFindings {
		l.findings = append(l.findings, fmt.Sprintf("%s: %s", time.Duration(l.Now()).Round(time.Millisecond), fmt.Sprintf(format, args...)))
	}
}

// Report records a broken promise that is not visible in a message.
func (l *Ledger) Report(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finding(&l.count.Other, format, args...)
}

// Stream opens a new stream.
func (l *Ledger) Stream(queue string, ordered bool) *Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	s := &Stream{ID: l.last, queue: queue, ordered: ordered}
	l.streams[s.ID] = s
	l.count.Streams++
	return s
}

// Next numbers a message that will be published. delay and ttl say which rules of its queue apply
// to the message.
func (l *Ledger) Next(s *Stream, delay time.Duration, ttl bool) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	it := item{published: l.Now()}
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

// Published records the answer to a publish: Confirmed, Refused or Maybe.
func (l *Ledger) Published(s *Stream, seq uint32, outcome uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	it := s.at(seq)
	if it == nil || it.state&(Confirmed|Refused|Maybe) != 0 {
		return
	}
	it.state |= outcome
	switch now := l.Now(); outcome {
	case Confirmed:
		it.returned = now
		l.count.Confirmed++
		if it.counts() {
			l.open++
		}
	case Maybe:
		it.ended = now
		it.state |= doubtful
		l.count.Unknown++
	case Refused:
		it.ended = now
		l.count.Refused++
	}
}

// Close records that no more messages will be published to a stream.
func (l *Ledger) Close(s *Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.closed = true
}

// Discard records that a stream's queue is being deleted with its messages.
func (l *Ledger) Discard(s *Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.closed, s.gone = true, true
}

// Hold names one delivery at a consumer.
type Hold struct {
	Stream, Seq uint32
	Published   int64 // time of the publish
}

// Value returns a hold as text for a message's body. ParseValue reads the text.
func (h Hold) Value() string { return fmt.Sprintf("%d.%d.%d", h.Stream, h.Seq, h.Published) }

// ParseValue is described at Value.
func ParseValue(v string) (h Hold, ok bool) {
	n, err := fmt.Sscanf(v, "%d.%d.%d", &h.Stream, &h.Seq, &h.Published)
	return h, n == 3 && err == nil && h.Value() == v
}

// Delivered records a delivery. It left the server later than the time after, from the message's
// queue or, if dead is true, from its dead-letter queue. Delivered reports whether it is the
// message's first delivery.
func (l *Ledger) Delivered(h Hold, after int64, dead bool) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
	l.count.Deliveries++
	s := l.streams[h.Stream]
	switch {
	case h.Stream == 0 || h.Stream > l.last:
		l.finding(&l.count.Other, "a message of stream %d came, which nobody published", h.Stream)
		return false
	case s == nil || h.Seq <= s.base:
		if !l.aside[ref{h.Stream, h.Seq}] && now-after < int64(keepFinal)/2 {
			l.finding(&l.count.Doubled, "redelivered: message %d of stream %d came again long after its ack was confirmed", h.Seq, h.Stream)
		}
		return false
	}
	it := s.at(h.Seq)
	if it == nil {
		l.finding(&l.count.Other, "message %d of stream %d came, which nobody published", h.Seq, h.Stream)
		return false
	}
	switch {
	case it.state&(final|doubtful) == final && after > it.ended:
		l.finding(&l.count.Doubled, "redelivered: message %d of stream %d (%s), its ack was confirmed %v before", h.Seq, h.Stream, s.queue, time.Duration(after-it.ended))
	case it.state&(parked|doubtful) == parked && !dead && after > it.ended:
		l.finding(&l.count.Doubled, "redelivered: message %d of stream %d (%s), it went to the dead-letter queue for certain", h.Seq, h.Stream, s.queue)
	case it.state&Refused != 0:
		l.finding(&l.count.Other, "message %d of stream %d (%s) was refused, and came", h.Seq, h.Stream, s.queue)
	case it.notBefore > 0 && now < it.notBefore-int64(50*time.Millisecond) && it.state&seen == 0:
		l.finding(&l.count.Other, "message %d of stream %d (%s) came %v before its delay was over", h.Seq, h.Stream, s.queue, time.Duration(it.notBefore-now))
	}
	if s.ordered && !dead {
		l.order(s, h.Seq, it, after)
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
	if s.ordered && h.Seq > s.top && !dead {
		s.top, s.topAt = h.Seq, now
	}
	return first
}

// order checks a delivery of a group that delivers one message at a time. All messages that were
// confirmed before its publish must be finished. No later message may have been delivered before
// it.
func (l *Ledger) order(s *Stream, seq uint32, it *item, after int64) {
	if seq < s.top && after > s.topAt && it.state&(ackSent|parked|doubtful) == 0 {
		l.finding(&l.count.Disorder, "order: message %d of stream %d (%s) came after message %d of the same group", seq, s.ID, s.queue, s.top)
		return
	}
	for n := s.base + 1; n < seq; n++ {
		if e := s.at(n); e.state&Confirmed != 0 && e.returned <= it.published && e.state&(ackSent|final|parked|lapses) == 0 {
			l.finding(&l.count.Disorder, "order: message %d of stream %d (%s) came before message %d of the same group was settled", seq, s.ID, s.queue, n)
			return
		}
	}
}

// Settling records that an ack, or a nack to the dead-letter queue, will be sent.
func (l *Ledger) Settling(hs []Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range hs {
		if it := l.item(h); it != nil {
			it.state |= ackSent
			if it.state&final == 0 {
				it.ended = l.Now()
			}
		}
	}
}

// Acked records that acks of messages were confirmed. It does not include nacks to the dead-letter
// queue, because such messages continue there.
func (l *Ledger) Acked(hs []Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
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

// DeadLettered records that messages are certainly in the dead-letter queue. They must be delivered
// from that queue.
func (l *Ledger) DeadLettered(hs []Hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
	for _, h := range hs {
		l.count.DeadLettered++
		if it := l.item(h); it != nil && it.state&final == 0 {
			it.state = it.state&^ackSent | parked
			it.ended = now
		}
	}
}

// Duplicate counts a dedup id that was sent again on purpose.
func (l *Ledger) Duplicate(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Duplicates += int64(n)
}

func (l *Ledger) item(h Hold) *item {
	if s := l.streams[h.Stream]; s != nil {
		return s.at(h.Seq)
	}
	return nil
}

// Sweep forgets finished messages. Call it about once a second.
func (l *Ledger) Sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
	for id, s := range l.streams {
		n := 0
		for n < len(s.items) {
			it := &s.items[n]
			quiet := now - max(it.ended, it.returned, it.published)
			switch {
			case it.state&final != 0 && now-it.ended > int64(keepFinal) && it.state&(Confirmed|Maybe|Refused) != 0,
				it.state&Refused != 0 && quiet > int64(keepFinal):
			case it.state&Confirmed != 0 && quiet > int64(overdue) && it.state&ackSent == 0:
				if it.counts() && !s.gone {
					l.finding(&l.count.Lost, "lost or stuck: message %d of stream %d (%s) was confirmed %v ago and not acked", s.base+uint32(n)+1, s.ID, s.queue, time.Duration(now-it.returned))
				}
				l.putAside(s, n)
			case s.gone && quiet > int64(keepFinal) && it.state&(Confirmed|Maybe|Refused) != 0,
				it.state&(lapses|Maybe|ackSent) != 0 && quiet > int64(keepOpen):
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

// putAside records the n-th item of a stream, which is about to be dropped although its message can
// still be delivered.
func (l *Ledger) putAside(s *Stream, n int) {
	it := &s.items[n]
	if it.state&final != 0 {
		return
	}
	if it.counts() {
		l.open--
	}
	if !s.gone && it.state&lapses == 0 { // a deleted queue delivers nothing, and no expired message comes so late
		l.aside[ref{s.ID, s.base + uint32(n) + 1}] = true
	}
}

// Finish judges the open messages when the queues are empty: confirmed messages without a confirmed
// ack are lost.
func (l *Ledger) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		if s.gone {
			continue
		}
		for i := range s.items {
			it := &s.items[i]
			if it.state&Confirmed == 0 || it.state&(final|ackSent|lapses) != 0 {
				continue
			}
			what := "never delivered"
			if it.state&seen != 0 {
				what = "delivered, never acked, and the queue is empty"
			}
			l.finding(&l.count.Lost, "lost: message %d of stream %d (%s): confirmed at %v, %s", s.base+uint32(i)+1, s.ID, s.queue,
				time.Duration(it.returned).Round(time.Millisecond), what)
		}
	}
}

// Pending returns how many messages are confirmed and not known to be acked, and how many items are
// in memory.
func (l *Ledger) Pending() (open int64, items int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		items += len(s.items)
	}
	return l.open, items
}

// Totals returns the counts so far.
func (l *Ledger) Totals() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Findings returns the findings.
func (l *Ledger) Findings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.findings...)
}
