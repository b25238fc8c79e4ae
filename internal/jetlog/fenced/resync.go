package fenced

import (
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// resync finds out what became of the blobs in flight, begins a new epoch, and lets the rest be
// sent again. After a passing error, trouble stays true, and turn calls resync again. An error ends
// the log.
func (l *Log) resync() error {
	w := &l.w
	err := l.tryResync()
	now := l.o.Clock.Passed()
	switch {
	case isEnd(err):
		return err
	case now-w.progress >= l.o.GiveUp:
		return wrap(surgetank.CodeUnavailable, fmt.Sprintf("the stream confirmed nothing for %v: %v", (now-w.progress).Round(time.Second), err), err)
	case err == nil:
		return nil
	}
	l.o.Logger.Debug("resync failed", "log", l.o.Name, "error", err)
	if w.pause = min(2*w.pause, longPause); w.pause == 0 {
		w.pause = firstPause
	}
	w.retry = now + w.pause
	if errors.Is(err, ErrMoved) { // somebody appended meanwhile
		w.retry, w.pause = now, 0
	}
	return nil
}

// isEnd reports whether an error of a resync ends the log.
func isEnd(err error) bool {
	var lost *errLost
	_, final := asFinal(err)
	return final || errors.As(err, &lost) || errors.Is(err, commitlog.ErrCorrupt)
}

func (l *Log) tryResync() error {
	w := &l.w
	b, err := l.s.Bounds(l.ctx)
	if err != nil {
		return err
	}
	if err := l.scan(b.Last); err != nil {
		return err
	}
	at, err := l.s.Append(l.ctx, w.scanned, appendRecord(nil, l.name, Header{Kind: Fence, Owner: l.owner}, nil))
	if err != nil {
		return err
	}
	if at != w.scanned+1 {
		return fmt.Errorf("the F record that must be stored at %d was stored at %d", w.scanned+1, at)
	}
	l.o.Logger.Debug("new epoch", "log", l.o.Name, "epoch", at, "before", w.epoch, "entries", len(w.items))
	w.begin(at)
	l.known.begin(at)
	return nil
}

// scan applies the rule to the records up to the position last. Own blobs that are valid are
// durable.
func (l *Log) scan(last uint64) error {
	w := &l.w
	r := l.reader(w.scanned+1, last)
	for r.more() {
		rec, err := r.record(l.ctx)
		if errors.Is(err, commitlog.ErrTrimmed) { // only another owner can have trimmed this
			return &errLost{at: r.next}
		}
		if err != nil {
			return err
		}
		w.scanned = rec.at
		switch v := w.rule.admit(rec.at, rec.h); {
		case v == begins && rec.h.Owner != l.owner:
			return &errLost{rec.h.Owner, rec.at}
		case v == begins:
			l.known.begin(rec.at)
		case v == valid && rec.h.Owner != l.owner:
			return l.corrupt(rec.at, fmt.Errorf("it is a valid blob of the owner %s, who has not fenced this log", rec.h.Owner))
		case v == valid && rec.h.Epoch == w.epoch:
			l.durable(rec.h.N, l.o.Clock.Passed())
		}
	}
	return nil
}
