package session

import (
	"errors"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

var errSocket = errors.New("the socket failed while it was written to")

// confirms has the outcomes of a channel's publishes in confirm mode. The client gets the outcomes
// in the order of publishing, so that one frame can confirm many publishes. A late nack is the
// exception: it is delayed, and later outcomes do not wait for it. As long as a late nack is not
// sent, each frame confirms one publish. The outbox's lock guards this struct.
type confirms struct {
	known  uint64          // every publish up to this number has its outcome
	told   uint64          // the client knows the outcomes up to this number
	early  map[uint64]bool // outcomes of publishes above known, after a gap
	nacks  []uint64        // numbers of refused publishes between told and known, in order
	later  map[uint64]bool // publishes that get a late nack; true: the nack is due
	due    []uint64        // the numbers of due late nacks
	listed bool            // the channel is in the outbox's confirms
}

// addOutcome enters the outcome of one publish.
func (f *confirms) addOutcome(seq uint64, ok bool) {
	if seq != f.known+1 {
		if f.early == nil {
			f.early = map[uint64]bool{}
		}
		f.early[seq] = ok
		return
	}
	for {
		f.known = seq
		if !ok {
			f.nacks = append(f.nacks, seq)
		}
		if len(f.early) == 0 {
			return
		}
		seq++
		var there bool
		if ok, there = f.early[seq]; !there {
			return
		}
		delete(f.early, seq)
	}
}

// postpone marks that a publish gets a late nack. overdue makes this nack due.
func (f *confirms) postpone(seq uint64) {
	if f.later == nil {
		f.later = map[uint64]bool{}
	}
	f.later[seq] = false
	f.addOutcome(seq, false)
}

// overdue makes a late nack due, so that the writer sends it.
func (f *confirms) overdue(seq uint64) {
	if seq <= f.told {
		f.due = append(f.due, seq)
	}
	f.later[seq] = true
}

// append appends the frames for the outcomes that the client does not know yet.
func (f *confirms) append(out []byte, channel uint16) []byte {
	upTo := func(seq uint64) {
		for len(f.later) > 0 && seq > f.told { // a frame for multiple publishes would include those with late nacks
			f.told++
			out = wire.AppendAck(out, channel, f.told, false)
		}
		if seq > f.told {
			out = wire.AppendAck(out, channel, seq, seq-f.told > 1)
			f.told = seq
		}
	}
	for _, n := range f.nacks {
		upTo(n - 1)
		if due, late := f.later[n]; !late || due {
			delete(f.later, n)
			out = wire.AppendNack(out, channel, n, false)
		}
		f.told = n
	}
	f.nacks = f.nacks[:0]
	upTo(f.known)
	for _, n := range f.due {
		delete(f.later, n)
		out = wire.AppendNack(out, channel, n, false)
	}
	f.due = f.due[:0]
	return out
}

// confirm enters the outcome of a publish. If seq is 0, the publish gets no confirm.
func (ch *channel) confirm(seq uint64, ok bool) {
	if seq == 0 {
		return
	}
	o := &ch.c.out
	o.mu.Lock()
	o.addOutcome(ch, seq, ok)
	o.mu.Unlock()
	o.wakeWriter()
}

func (ch *channel) confirmSelect(m *wire.ConfirmSelect) error {
	if ch.mode == transactional {
		return wire.Errorf(wire.CodePreconditionFailed, "cannot switch from tx to confirm mode")
	}
	ch.mode = confirming
	ch.answerUnless(m.NoWait, wire.Bare(wire.IDConfirmSelectOk))
	return nil
}
