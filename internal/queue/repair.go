package queue

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/seqset"
)

// Loss is a run of entries that a repair lost. The state remembers it for good.
type Loss struct {
	First, Last uint64 // numbers of entries
	Tail        bool   // the run is the end of the log; its length is unknown, and Last is only a stand-in
	Known       bool   // a snapshot has the facts: only bodies are lost
	Time        int64  // time of the repair, in nanoseconds since 1970
}

const (
	lossTail = 1 << iota
	lossKnown
)

// Losses returns the entries of this log that repairs lost, oldest first.
func (m *Machine) Losses() []Loss { return m.losses }

func encodeLosses(list []Loss) []byte {
	b := appendUint([]byte{byte(kindSnapLoss)}, uint64(len(list)))
	for _, l := range list {
		flags := byte(0)
		if l.Tail {
			flags |= lossTail
		}
		if l.Known {
			flags |= lossKnown
		}
		b = append(appendUint(appendUint(b, l.First), l.Last), flags)
		b = appendUint(b, uint64(l.Time))
	}
	return b
}

func (d *decoder) losses() (list []Loss) {
	for n := d.count(); n > 0 && d.err == nil; n-- {
		l := Loss{First: d.uint(), Last: d.uint()}
		flags := d.byte()
		l.Tail, l.Known, l.Time = flags&lossTail != 0, flags&lossKnown != 0, d.time()
		list = append(list, l)
	}
	return list
}

const (
	// seqsPerEntry is more than the messages that one entry can add to a queue. Turns end at 256
	// KiB, transactions at 12 MiB. A message takes at least 8 bytes, and 256 in a transaction.
	seqsPerEntry = 1 << 16
	// tailSeqs is the number skipped for a lost tail, whose length is unknown. maxSkip limits all
	// skips together, because a queue's slots take a quarter of a byte for each number from its
	// oldest to its newest message.
	tailSeqs = 1 << 20
	maxSkip  = 1 << 26
	// maxJump is how far a queue's sequence numbers may rise from one fact to the next. A larger
	// jump is treated as a contradiction.
	maxJump = 1 << 30
)

// Repair replays, for the repair command, a log that lost entries. Without Repair, a machine does
// not accept facts that contradict its state. Here the facts are known to be incomplete: Repair
// adapts each fact, and counts the facts that cannot be adapted. It assumes only what a later fact
// states. Use Repair between New (or Restore) and Recovered:
//
//	a fact about                             | treatment
//	-----------------------------------------+---------------------------------------------------------------------
//	a message later than the next one        | accepted; the messages between were in a lost entry and are missing
//	settling, returning or transferring a    | left out. A settled message is not missing any more. A transferred
//	message that was never seen              | message makes its copy missing, too
//	writing an unseen message again          | accepted: only live messages are written again
//	a queue that was never created           | created, paused, under a made-up name until a fact has its name
//	a queue whose name another queue has     | the removal of the older queue was lost: it is removed
//	an epoch that was not opened             | opened
type Repair struct {
	m       *Machine
	now     int64
	gaps    []Loss
	lost    uint64                // entries whose facts are lost
	missing map[uint64]seqset.Set // by queue: messages stored in lost entries and not settled later
	known   map[uint64]uint64     // by queue: the value of lost when the queue's next number was last known exactly
	made    map[uint64]bool       // queues that were created without a fact
	report  RepairReport
}

// RepairReport lists the losses of a repair.
type RepairReport struct {
	Losses []Loss // losses that this repair found
	Queues []QueueLoss
	// Unknown counts facts that settle, return or move messages that were never seen. Most of these
	// messages were stored in a lost entry.
	Unknown int
	// Contradictions counts facts that could not be adapted to the state and were left out.
	Contradictions int
	// Settled counts messages of an older snapshot that must have been settled, because the log was
	// trimmed past them.
	Settled int
	// Removed names queues whose removal was in a lost entry and is known from another fact.
	Removed []string
}

// QueueLoss is the losses of one queue.
type QueueLoss struct {
	ID   uint64
	Name string
	// MadeUp: the queue's name and settings are lost. The queue is paused. A redrive can move its
	// messages.
	MadeUp bool
	// Missing are the numbers of messages that are lost completely. The numbers are known because
	// later messages exist.
	Missing []seqset.Run
	// Bodies are the numbers of messages whose body is lost and whose facts exist. They are listed
	// as damaged.
	Bodies []seqset.Run
	// Skipped: messages from this number on may be missing, too; their count is unknown. The
	// numbers are not used again. 0: none.
	Skipped uint64
	// Histories counts messages that lost a part of their dead-letter history.
	Histories int
}

// StartRepair starts the replay of a log for repair. now is the time of the repair. If now is
// before the newest time that the machine has seen, the newest time is used.
func (m *Machine) StartRepair(now int64) *Repair {
	m.recovering = true
	return &Repair{m: m, now: max(m.now, now, 0), missing: map[uint64]seqset.Set{}, known: map[uint64]uint64{}, made: map[uint64]bool{}}
}

// Gap reports that entries are lost after the entries replayed so far.
func (s *Repair) Gap(first, last uint64) {
	if n := len(s.gaps); n > 0 && s.gaps[n-1].Last+1 == first && !s.gaps[n-1].Known {
		s.gaps[n-1].Last = last
	} else {
		s.gaps = append(s.gaps, Loss{First: first, Last: last, Time: s.now})
	}
	s.lost += last - first + 1
}

// Entry replays an entry. It fails if the entry cannot be decoded. Checksums detect damage, so an
// entry that cannot be decoded was not written by this version.
func (s *Repair) Entry(entry []byte) (EntryHeader, error) {
	m := s.m
	h, _, err := ParseHeader(entry)
	if err != nil {
		return h, err
	}
	m.now = max(m.now, h.Time)
	m.extents.grow(h.Number, len(entry))
	if h.Epoch > m.epoch {
		opens := false
		if err := Records(entry, func(_ EntryHeader, r *Record) error {
			opens = opens || r.Kind == kindEpoch || r.Kind == kindOpened
			return nil
		}); err != nil {
			return h, err
		}
		if !opens {
			m.apply(&Record{Kind: kindEpoch, Epoch: h.Epoch})
		}
	}
	err = Records(entry, func(_ EntryHeader, r *Record) error {
		if s.fit(r) {
			m.apply(r)
		}
		return nil
	})
	return h, err
}

// fit adapts a fact so that it can be applied to the state. It returns false if the fact must be
// left out.
func (s *Repair) fit(r *Record) bool {
	m := s.m
	switch r.Kind {
	case kindEnqueued, kindArrived:
		r.Targets = slices.DeleteFunc(r.Targets, func(t Target) bool { return !s.next(s.queue(t.Queue, r.Time), t.Seq) })
		for i := range r.Targets {
			t := &r.Targets[i]
			if t.Supersedes != 0 && !s.seen(t.Queue, m.byID[t.Queue], t.Supersedes) {
				t.Supersedes = 0
			}
		}
		return len(r.Targets) > 0
	case kindCopied, kindPart, kindMovedIn:
		if m.applicable(r) {
			return true
		}
		s.report.Unknown++
		return false
	case kindMoved:
		for i := range r.Targets {
			s.movedUnseen(r, &r.Targets[i])
		}
		return true
	case kindAcked, kindRemoved:
		q := m.byID[r.Queue]
		r.Seqs = slices.DeleteFunc(r.Seqs, func(seq uint64) bool { return !s.seen(r.Queue, q, seq) })
		slices.Sort(r.Seqs)
		r.Seqs = slices.Compact(r.Seqs)
		return len(r.Seqs) > 0
	case kindReturned, kindFailed:
		q := m.byID[r.Queue]
		if q != nil {
			s.reaches(q, r.Seqs[0])
		}
		if q == nil || !live(q, r.Seqs[0]) {
			s.report.Unknown++
			return false
		}
	case kindTransferred:
		return s.fitTransfer(r)
	case kindCoalesced:
		return s.fitCoalesced(r)
	case kindPurged, kindQueueGone:
		q := m.byID[r.Queue]
		if r.Kind == kindQueueGone {
			delete(s.missing, r.Queue)
		} else if q != nil {
			s.purged(q, r)
		}
		if q == nil {
			s.report.Unknown++
			return false
		}
	case kindClosed:
		return false // after a repair, every message counts as possibly delivered before
	case kindQueueSet:
		if r.Queue == 0 {
			s.report.Contradictions++
			return false
		}
		s.named(r.Queue, r.Name)
	}
	return true
}

// purged removes the purged messages from the missing messages. A purge also states the queue's
// next number, and which messages were leased and stayed.
func (s *Repair) purged(q *Queue, r *Record) {
	if s.reaches(q, r.Below-1); q.nextSeq == r.Below {
		s.known[q.id] = s.lost
	}
	x := s.missing[q.id]
	x.RemoveBelowExcept(r.Below, r.Seqs)
	s.missing[q.id] = x
}

func live(q *Queue, seq uint64) bool {
	x := q.slots.get(seq)
	return x != nil && x.live()
}

// seen tells whether a message that a fact settles exists. If it does not exist, it was stored in a
// lost entry, and is not missing any more because it is settled.
func (s *Repair) seen(id uint64, q *Queue, seq uint64) bool {
	if q != nil && live(q, seq) {
		return true
	}
	s.forget(id, q, seq)
	s.report.Unknown++
	return false
}

// forget removes a message from the missing messages.
func (s *Repair) forget(id uint64, q *Queue, seq uint64) {
	if q != nil {
		s.reaches(q, seq)
	}
	x := s.missing[id]
	x.Remove(seq)
	s.missing[id] = x
}

// reaches records that a queue contained message seq. Unknown numbers up to seq were stored in lost
// entries and are missing. Whether the queue had later messages is not known.
func (s *Repair) reaches(q *Queue, seq uint64) {
	switch {
	case seq < q.nextSeq:
	case seq-q.nextSeq > maxJump:
		s.report.Contradictions++
	default:
		x := s.missing[q.id]
		x.Add(q.nextSeq, seq)
		s.missing[q.id] = x
		q.nextSeq = seq + 1
	}
}

// next records that message seq is stored in a queue now, and that unknown numbers before seq are
// missing. It returns false if this contradicts the state.
func (s *Repair) next(q *Queue, seq uint64) bool {
	if seq < q.nextSeq || seq-q.nextSeq > maxJump {
		s.report.Contradictions++
		return false
	}
	if seq > q.nextSeq {
		x := s.missing[q.id]
		x.Add(q.nextSeq, seq-1)
		s.missing[q.id] = x
	}
	q.nextSeq = seq + 1
	s.known[q.id] = s.lost
	return true
}

// queue returns a queue. It creates one under a made-up name if there is none.
func (s *Repair) queue(id uint64, now int64) *Queue {
	m := s.m
	if q := m.byID[id]; q != nil {
		return q
	}
	name := fmt.Sprintf("repaired-queue-%d", id)
	for m.byName[name] != nil {
		name += "-"
	}
	r := Record{Kind: kindQueueSet, Queue: id, Name: name, Time: now, Config: surgetank.QueueConfig{Paused: true, Retry: surgetank.RetryConfig{MaxAttempts: -1}}}
	m.apply(&r)
	s.made[id] = true
	return m.byID[id]
}

// named sets the name of a queue with a made-up name. It removes another queue that had the name.
func (s *Repair) named(id uint64, name string) {
	m := s.m
	if old := m.byName[name]; old != nil && old.id != id {
		s.report.Removed = append(s.report.Removed, fmt.Sprintf("%s (number %d)", shown(name), old.id))
		delete(s.missing, old.id)
		m.queueGone(old)
	}
	if q := m.byID[id]; q != nil && q.name != name {
		delete(m.byName, q.name)
		q.name = name
		m.byName[name] = q
	}
	delete(s.made, id)
}

// movedUnseen accepts a message that was written again and whose first record is lost.
func (s *Repair) movedUnseen(r *Record, t *Target) {
	q := s.m.byID[t.Queue]
	if q != nil && live(q, t.Seq) {
		return
	}
	q = s.queue(t.Queue, r.Time)
	if s.reaches(q, t.Seq); t.Seq >= q.nextSeq {
		return // a contradiction
	}
	x := s.missing[q.id]
	x.Remove(t.Seq)
	s.missing[q.id] = x
	added := q.insert(t.Seq, t.Group, min(r.Priority, q.config.MaxPriority), r.BodySize, r.Time)
	added.setRef(r.Ref)
	s.m.extents.add(r.Ref, int64(r.BodySize)+messageCost)
	q.place(t.Seq, added, r.NotBefore, r.Time)
}

// fitTransfer tells whether a transferred message exists in the queue that it leaves. If it does
// not exist, its copy in the new queue is missing.
func (s *Repair) fitTransfer(r *Record) bool {
	from := s.m.byID[r.Queue]
	if from != nil && s.made[r.Queue] && r.Name != "" && s.m.byName[r.Name] == nil {
		s.named(r.Queue, r.Name)
		s.made[r.Queue] = true // its settings are still lost
	}
	to := s.queue(r.ToQueue, r.Time)
	there := s.seen(r.Queue, from, r.Seqs[0])
	if !s.next(to, r.ToSeq) {
		return false
	}
	if !there {
		x := s.missing[to.id]
		x.Add(r.ToSeq, r.ToSeq)
		s.missing[to.id] = x
	}
	return there
}

// fitCoalesced adapts the fact that one message stands for another, which is removed. If the
// removed message was never seen, it is not missing any more. If the message that stands for it was
// never seen, only the removal is applied.
func (s *Repair) fitCoalesced(r *Record) bool {
	from, to := s.m.byID[r.Queue], s.m.byID[r.ToQueue]
	there := len(r.Seqs) > 0 && s.seen(r.Queue, from, r.Seqs[0])
	if to != nil {
		s.reaches(to, r.ToSeq)
	}
	switch {
	case to != nil && live(to, r.ToSeq) && (there || len(r.Seqs) == 0):
		return true
	case there:
		r.Kind = kindRemoved
		return true
	case len(r.Seqs) == 0:
		s.report.Unknown++
	}
	return false
}

// Body reports a lost entry that the snapshot covers: its facts are known, the bodies in it are
// lost.
func (s *Repair) Body(entry uint64) {
	if n := len(s.gaps); n > 0 && s.gaps[n-1].Last+1 == entry {
		s.gaps[n-1].Last = entry
		return
	}
	s.gaps = append(s.gaps, Loss{First: entry, Last: entry, Known: true, Time: s.now})
}

// Finish ends the replay and returns the report. If tail is true, the last gap is the end of the
// log and its length is unknown. gone tells whether the log had been trimmed past an entry before
// the damage. readable tells whether the log contains an entry. Call Recovered after Finish.
// Without losses Finish changes nothing.
func (s *Repair) Finish(tail bool, gone func(entry uint64) bool, readable func(entry uint64) bool) *RepairReport {
	m := s.m
	rep := &s.report
	if n := len(s.gaps); tail && n > 0 {
		s.gaps[n-1].Tail = true
	}
	rep.Losses = s.gaps
	for _, q := range m.sorted() {
		if q.config.Transient { // the queue was deleted when the broker ended
			m.queueGone(q)
			continue
		}
		l := QueueLoss{ID: q.id, Name: q.name, MadeUp: s.made[q.id], Missing: s.missing[q.id]}
		s.bodies(q, &l, gone, readable)
		if n := s.lost - s.known[q.id]; n > 0 || tail {
			skip := min(n, maxSkip/seqsPerEntry) * seqsPerEntry
			if tail {
				skip += tailSeqs
			}
			l.Skipped = q.nextSeq
			q.nextSeq += min(skip, maxSkip)
		}
		if l.MadeUp || l.Missing != nil || l.Bodies != nil || l.Skipped != 0 || l.Histories > 0 {
			rep.Queues = append(rep.Queues, l)
		}
	}
	if s.lost > 0 {
		m.epoch += s.lost // each lost entry can have opened an epoch, whose receipts must stay void
		m.nextQueue += min(s.lost, 1<<32) * seqsPerEntry
	}
	m.losses = append(m.losses, s.gaps...)
	return rep
}

// bodies finds messages that lost their body or a part of their dead-letter history.
func (s *Repair) bodies(q *Queue, l *QueueLoss, gone, readable func(entry uint64) bool) {
	var settled []uint64
	var lost seqset.Set
	q.slots.ascend(0, func(seq uint64, x *slot) bool {
		if !x.live() || x.state() == slotLost {
			return true
		}
		if x.has(slotNoted) {
			n := q.notes[seq]
			had := len(n.refs)
			n.refs = slices.DeleteFunc(n.refs, func(r Ref) bool {
				if readable(r.Entry()) {
					return false
				}
				s.m.extents.sub(r, noteCost)
				return true
			})
			if len(n.refs) < had {
				l.Histories++
			}
		}
		switch e := x.ref().Entry(); {
		case readable(e):
		case gone(e):
			settled = append(settled, seq)
		default:
			lost.Add(seq, seq)
		}
		return true
	})
	for _, seq := range settled {
		q.erase(seq)
		s.report.Settled++
	}
	for _, r := range lost {
		for seq := r.First; seq <= r.Last; seq++ {
			x := q.slots.edit(seq)
			s.m.extents.sub(x.ref(), int64(x.size)+messageCost)
			delete(q.due, seq)
			x.lose()
		}
	}
	l.Bodies = lost
}

// Whole tells whether nothing was lost.
func (r *RepairReport) Whole() bool {
	return len(r.Losses) == 0 && len(r.Queues) == 0 && r.Unknown+r.Contradictions+r.Settled+len(r.Removed) == 0
}

// Lines returns the report as sentences.
func (r *RepairReport) Lines() (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	facts := false
	for _, x := range r.Losses {
		if x.Known {
			say("damaged: entries %d to %d; a snapshot has their facts, so only bodies that stood in them can be lost", x.First, x.Last)
			continue
		}
		facts = true
		switch {
		case x.Tail:
			say("lost: entries from %d to the end of the log; nothing says how many", x.First)
		case x.First == x.Last:
			say("lost: entry %d", x.First)
		default:
			say("lost: entries %d to %d", x.First, x.Last)
		}
	}
	for _, q := range r.Queues {
		name := shown(q.Name)
		if q.MadeUp {
			say("queue number %d: its name and settings are lost; it is called %s and paused, move its messages with queue redrive --to", q.ID, name)
		}
		if len(q.Missing) > 0 {
			say("queue %s: messages %s are missing, unless they were settled in a lost entry", name, runs(q.Missing))
		}
		if len(q.Bodies) > 0 {
			say("queue %s: the bodies of messages %s are lost; they are kept as damaged (queue peek --state damaged), and go with queue purge --damaged", name, runs(q.Bodies))
		}
		if q.Skipped > 0 {
			say("queue %s: messages from %d on may be missing; these numbers are not given again", name, q.Skipped)
		}
		if q.Histories > 0 {
			say("queue %s: %d messages lost a part of their dead-letter history", name, q.Histories)
		}
	}
	if len(r.Removed) > 0 {
		say("queues removed, because one of the same name was made later: %s", strings.Join(r.Removed, ", "))
	}
	if r.Settled > 0 {
		say("%d messages of the older snapshot had been settled: the log was trimmed of them", r.Settled)
	}
	if r.Unknown > 0 {
		say("%d facts about messages that were never seen were left out", r.Unknown)
	}
	if r.Contradictions > 0 {
		say("%d facts that contradict the others were left out", r.Contradictions)
	}
	if facts {
		say("what else stood in the lost entries is lost, too: messages that were acked in them are delivered again, and dedup ids and settings stored in them are forgotten")
	}
	return lines
}

// runs formats ranges for users.
func runs(list []seqset.Run) string {
	var b strings.Builder
	for i, r := range list {
		if i == 20 {
			fmt.Fprintf(&b, " and %d more runs", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if r.First == r.Last {
			fmt.Fprintf(&b, "%d", r.First)
		} else {
			fmt.Fprintf(&b, "%d to %d", r.First, r.Last)
		}
	}
	return b.String()
}

// At returns the time of the repair.
func (l *Loss) At() time.Time { return time.Unix(0, l.Time).UTC() }
