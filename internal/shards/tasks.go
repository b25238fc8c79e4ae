package shards

import (
	"context"
	"sync"
	"time"
)

// task is a part of the router's own work. The router is a core: it starts no goroutine for a task
// and does not wait for time to pass. A runner calls the task. The task does one step, and returns
// the pause before its next step. more is false when the task is done.
type task func() (pause time.Duration, more bool)

// runner runs tasks.
type runner interface {
	// start starts a task. It does not call the task and does not wait.
	start(task)
}

// goroutines runs each task on a goroutine of its own.
type goroutines struct{ b *Broker }

func (g goroutines) start(t task) {
	g.b.work.Go(func() {
		for {
			pause, more := t()
			if !more {
				return
			}
			if pause > 0 {
				g.b.pause(pause) // a closed router does not wait, and the task ends
			}
		}
	})
}

// pause waits. It ends at once if the router is closed.
func (b *Broker) pause(d time.Duration) {
	t := b.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-b.ctx.Done():
	}
}

// paused waits. It returns false if the router is closed.
func (b *Broker) paused(d time.Duration) bool {
	b.pause(d)
	return b.ctx.Err() == nil
}

// Stepped is a router that its caller runs: no goroutine takes part. It is for the simulator and
// for tests. Only one goroutine may use it, and its shards must be stepped brokers. A call that is
// split among shards must be asynchronous.
type Stepped struct {
	*Broker
	steps *steps
}

// OpenStepped is New for a caller that runs the router. The functions that run the shards must not
// call Step.
func OpenStepped(ctx context.Context, parts []Part, opts Options) (*Stepped, error) {
	s := &steps{}
	b, err := open(ctx, parts, opts, func(b *Broker) runner {
		s.b = b
		return s
	})
	if err != nil {
		return nil, err
	}
	return &Stepped{b, s}, nil
}

// Step does one step of a task whose pause is over. pick chooses among n tasks. Step returns false
// if there is no such task.
func (s *Stepped) Step(pick func(n int) int) bool {
	now := s.clock.Passed()
	s.steps.mu.Lock()
	var due []*waiting
	for _, w := range s.steps.list {
		if w.due <= now {
			due = append(due, w)
		}
	}
	s.steps.mu.Unlock()
	if len(due) == 0 {
		return false
	}
	w := due[pick(len(due))]
	pause, more := w.task()
	w.due = s.clock.Passed() + pause
	if !more {
		s.steps.remove(w)
	}
	return true
}

// Due returns the time until Step has something to do, or false if no task waits.
func (s *Stepped) Due() (d time.Duration, ok bool) {
	s.steps.mu.Lock()
	defer s.steps.mu.Unlock()
	for _, w := range s.steps.list {
		if left := max(0, w.due-s.clock.Passed()); !ok || left < d {
			d, ok = left, true
		}
	}
	return d, ok
}

// steps contains the tasks of a Stepped router.
type steps struct {
	b    *Broker
	mu   sync.Mutex
	list []*waiting
}

type waiting struct {
	task
	due time.Duration // by clock.Passed
}

func (s *steps) start(t task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, &waiting{t, s.b.clock.Passed()})
}

func (s *steps) remove(w *waiting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list {
		if s.list[i] == w {
			s.list = append(s.list[:i:i], s.list[i+1:]...)
			return
		}
	}
}
