package fenced

import (
	"context"
	"time"
)

// runner runs a log's turns.
type runner interface {
	// work is called when there is work for a turn. The caller holds mu.
	work(l *Log)
	// await runs or waits until done is closed.
	await(l *Log, done <-chan struct{})
}

// goroutine is the runner of a log with a goroutine of its own, which exists only while appends
// wait.
type goroutine struct {
	wake chan struct{}
}

func newGoroutine() *goroutine { return &goroutine{wake: make(chan struct{}, 1)} }

func (g *goroutine) work(l *Log) {
	if !l.running {
		l.running = true
		go g.run(l)
		return
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// run runs turns until no append waits.
func (g *goroutine) run(l *Log) {
	timer := l.o.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, _ := l.turn()
		l.mu.Lock()
		if l.waiting == 0 {
			l.running, l.answers, l.disturbed = false, nil, false
			l.idle.Broadcast()
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-g.wake:
		case <-timer.C():
		}
	}
}

func (g *goroutine) await(_ *Log, done <-chan struct{}) { <-done }

// Stepped is a log without a goroutine. It only works in Pump, Close and Snapshots.Save, on the
// caller's goroutine. The simulator uses it.
type Stepped struct{ *Log }

// AcquireStepped is Acquire for a caller that runs the log.
func AcquireStepped(ctx context.Context, o Options) (*Stepped, error) {
	l, err := acquire(ctx, o, &inline{})
	if err != nil {
		return nil, err
	}
	return &Stepped{l}, nil
}

// Pump does all work that can be done now. It returns how long nothing is left to do without an
// answer of the stream, and whether appends wait. It does nothing when a callback calls it.
func (l *Stepped) Pump() (wait time.Duration, busy bool) {
	l.mu.Lock()
	if l.running {
		l.mu.Unlock()
		return 0, false
	}
	l.running = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.running = false
		l.mu.Unlock()
	}()
	for {
		wait, _ = l.turn()
		l.mu.Lock()
		busy = l.waiting > 0
		again := len(l.queue)+len(l.answers) > 0 || l.disturbed && busy
		l.mu.Unlock()
		if !again {
			return wait, busy
		}
	}
}

// Close runs the log until no append waits, and closes it.
func (l *Stepped) Close() error {
	for {
		if _, busy := l.Pump(); !busy {
			return l.Log.Close()
		}
		l.s.Wait(l.ctx, firstPause)
	}
}

// inline is the runner of a Stepped log.
type inline struct{}

func (*inline) work(*Log) {}

func (*inline) await(l *Log, done <-chan struct{}) {
	s := Stepped{l}
	for {
		select {
		case <-done:
			return
		default:
		}
		s.Pump()
		select {
		case <-done:
			return
		default:
			l.s.Wait(l.ctx, firstPause)
		}
	}
}
