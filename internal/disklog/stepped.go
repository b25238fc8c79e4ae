package disklog

import "github.com/surgetank/surgetank/internal/commitlog"

// Stepped is a log without goroutines. It only works in Open, Pump, ScrubStep, Trim and Close, on
// the caller's goroutine. The simulator and repair use it.
type Stepped struct{ *Log }

// OpenStepped is Open for a caller that runs the log. The log writes no zeros ahead, and only
// ScrubStep scrubs.
func OpenStepped(o Options) (commitlog.Replay, *Stepped, error) {
	replay, l, err := open(o, inline{})
	if err != nil {
		return nil, nil, err
	}
	return replay, &Stepped{l}, nil
}

// Pump does all waiting work: it writes and syncs appended entries, calls back, and maintains
// segments. Two goroutines must not call it at the same time. It does nothing when a callback calls
// it.
func (l *Stepped) Pump() {
	l.mu.Lock()
	if l.running {
		l.mu.Unlock()
		return
	}
	for {
		l.running = true
		l.mu.Unlock()
		for l.turn() {
		}
		l.maintain()
		l.mu.Lock()
		if (len(l.queue) == 0 || l.blocked) && !(l.early && l.next != nil && l.err == nil) {
			l.mu.Unlock()
			return
		}
	}
}

// ScrubStep reads one file. It reports whether the pass has more files. If a file is damaged, the
// next step reads it a second time and reports the result.
func (l *Stepped) ScrubStep() (more bool) {
	if l.closed.Load() || l.failure() != nil {
		return false
	}
	return l.scrub.step()
}

// Close pumps and closes the log.
func (l *Stepped) Close() error {
	l.Pump()
	return l.Log.Close()
}

// inline is the runner of a Stepped log.
type inline struct{}

func (inline) start(*Log)                  {}
func (inline) write(*Log)                  {}
func (inline) wantNext(l *Log)             { l.maintain() }
func (inline) stop(*Log)                   {}
func (inline) zeros() bool                 { return false }
func (inline) permit(*scrubber, int) error { return nil }

func (inline) trimmed(l *Log, writing bool) {
	if !writing {
		l.maintain()
	}
}
