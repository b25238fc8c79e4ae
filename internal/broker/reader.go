package broker

import (
	"context"
	"errors"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// reader reads messages for one receiver. It keeps the last entry, because the next message is
// mostly in the same entry.
type reader struct {
	entryReader
	broker *Broker
	stored queue.Stored
}

func newReader(b *Broker) reader { return reader{entryReader: entryReader{b: b.core}, broker: b} }

// entryReader reads entries, and keeps the last one.
type entryReader struct {
	b      *core
	number uint64
	entry  []byte
}

func (r *entryReader) load(number uint64) ([]byte, error) {
	if r.number == number && r.entry != nil {
		return r.entry, nil
	}
	at, ok := r.b.places.offset(number)
	if !ok {
		return nil, commitlog.ErrTrimmed
	}
	entry, err := r.b.log.Read(at)
	if err == nil {
		r.number, r.entry = number, entry
	}
	return entry, err
}

// rest drops the entry when no more hand-outs wait. Otherwise ten thousand idle consumers could
// keep ten thousand entries in memory. The log's own limited cache still contains the entry for a
// while.
func (r *reader) rest(s *subscription) {
	if r.entry != nil && !s.holds() {
		r.number, r.entry = 0, nil
		r.stored = queue.Stored{Targets: r.stored.Targets[:0]}
	}
}

// delivery reads a message. It returns false if the message does not exist any more.
func (r *reader) delivery(o *queue.Handout, d *surgetank.Delivery) (bool, error) {
	for range 3 {
		err := r.read(o, d)
		if retryAfter(err) > 0 {
			err = r.read(o, d) // try again: a single I/O error can be passing
		}
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, commitlog.ErrTrimmed) {
			code := surgetank.CodeCorrupt
			var known *surgetank.Error
			if errors.As(err, &known) {
				code = known.Code // the code for a closed log or for an I/O error
			}
			return false, surgetank.Errorf(code, "message %d of queue %q cannot be read: %w", o.Seq, o.Queue.Name(), err)
		}
		// The message was moved to the log's end after it was handed out. Ask the machine for its
		// new position.
		p := &queue.Peek{Queue: o.Queue.Name(), Opts: surgetank.PeekOptions{Max: 1, ID: surgetank.MessageID{Queue: o.Queue.ID(), Seq: o.Seq}}}
		if err := r.broker.do(context.Background(), p, 0); err != nil {
			return false, err
		}
		if p.Err != nil || len(p.Found) == 0 {
			return false, nil
		}
		o.Ref, o.Notes = p.Found[0].Ref, p.Found[0].Notes
	}
	return false, surgetank.Errorf(surgetank.CodeInternal, "message %d of queue %q: %w while it was read; receive again", o.Seq, o.Queue.Name(), errMoved)
}

func (r *reader) read(o *queue.Handout, d *surgetank.Delivery) error {
	entry, err := r.load(o.Ref.Entry())
	if err != nil {
		return err
	}
	r.stored = queue.Stored{Targets: r.stored.Targets}
	if err := queue.ReadMessage(entry, o.Ref, &r.stored); err != nil {
		return err
	}
	d.Message = r.stored.Message
	for i := range r.stored.Targets { // a transferred copy's queue is not in Targets: its TTL ended with the transfer
		if t := &r.stored.Targets[i]; t.Expires != 0 && t.Queue == o.Queue.ID() && t.Seq == o.Seq {
			d.TTL = time.Duration(t.Expires - r.stored.Time.UnixNano())
		}
	}
	d.Group = o.Group
	d.ID = o.ID
	d.Queue = o.Queue.Name()
	d.Time, d.Attempt, d.Redelivered = r.stored.Time, o.Attempt, o.Redelivered
	if o.Lease != 0 {
		d.Receipt, d.FencingToken = r.b.receipt(o), o.Token
	}
	if o.Deadline != 0 {
		d.Deadline = time.Unix(0, o.Deadline)
	}
	for _, ref := range o.Notes {
		entry, err := r.load(ref.Entry())
		if err != nil {
			return err
		}
		death, err := queue.ReadNote(entry, ref)
		if err != nil {
			return err
		}
		death.Group = o.Group
		d.Deaths = append(d.Deaths, death)
	}
	d.Deaths = append(d.Deaths, r.stored.Deaths...)
	d.Deaths = d.Deaths[:min(len(d.Deaths), queue.MaxDeaths)]
	return nil
}

// survivor reads a message and its whole history.
func (r *entryReader) survivor(v *queue.Survivor) (queue.Relocation, error) {
	entry, err := r.load(v.Ref.Entry())
	if err != nil {
		return queue.Relocation{}, err
	}
	var s queue.Stored
	if err := queue.ReadMessage(entry, v.Ref, &s); err != nil {
		return queue.Relocation{}, err
	}
	var deaths []surgetank.Death
	for _, ref := range v.Notes {
		entry, err := r.load(ref.Entry())
		if err != nil {
			return queue.Relocation{}, err
		}
		death, err := queue.ReadNote(entry, ref)
		if err != nil {
			return queue.Relocation{}, err
		}
		deaths = append(deaths, death)
	}
	deaths = append(deaths, s.Deaths...)
	return queue.Relocation{Survivor: *v, Message: &s.Message, Deaths: deaths[:min(len(deaths), queue.MaxDeaths)], Time: s.Time}, nil
}
