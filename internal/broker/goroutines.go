package broker

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/callback"
)

// goroutines runs a core: the loop, and the executor of the core's tasks. A task of a user that
// panics or ends its goroutine must not end the loop. A panic is recovered at the call. Outputs that
// call users' functions are sent on a separate goroutine, and the loop waits for that goroutine. If
// a function ends the goroutine, a new goroutine continues.
type goroutines struct {
	nudge func()
	work  sync.WaitGroup
	once  sync.Once // closes the log
}

// start starts the loop and waits until the epoch is open.
func (g *goroutines) start(c *core) error {
	c.users, g.nudge = &c.calls, c.mailbox.nudge
	g.work.Add(1)
	go g.loop(c)
	if err := <-c.opened; err != nil {
		g.work.Wait()
		return errors.Join(err, c.log.Close())
	}
	return nil
}

// loop runs the core until the broker ends.
func (g *goroutines) loop(c *core) {
	defer g.work.Done()
	timer := c.clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for c.step() {
		}
		if !c.alive() {
			return
		}
		timer.Reset(c.untilDue())
		select {
		case <-c.mailbox.wake:
		case <-timer.C():
		}
	}
}

// close lets the loop finish the accepted commands, and closes the log.
func (g *goroutines) close(c *core) error {
	c.mailbox.finish(errClosed())
	<-c.closed
	g.work.Wait()
	var err error
	g.once.Do(func() { err = c.log.Close() }) // also after a failure, so that the log can be opened again
	select {
	case <-c.failed:
		return nil // the failure was reported
	default:
	}
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInternal, "closing the log: %w", err)
	}
	return nil
}

func (g *goroutines) background(task func()) {
	g.work.Add(1)
	go func() {
		defer g.work.Done()
		task()
	}()
}

func (g *goroutines) each(n int, step func(i int)) { callback.Each(n, step) }

// store starts a goroutine that stores a snapshot while its pieces arrive.
func (g *goroutines) store(save func(func(io.Writer) error) error, done func(error)) pieces {
	s := &stream{pieces: make(chan []byte, 2), ended: make(chan struct{})}
	g.background(func() {
		defer close(s.ended)
		err := save(func(w io.Writer) error {
			for p := range s.pieces {
				if p == nil {
					return errAbandoned
				}
				g.nudge()
				if _, err := w.Write(p); err != nil {
					return err
				}
			}
			return nil
		})
		for range s.pieces { // receive the remaining pieces after an error, so that the core can go on
			g.nudge()
		}
		done(err)
	})
	return s
}

// stream passes the pieces of a snapshot to the goroutine that stores them.
type stream struct {
	pieces chan []byte
	ended  chan struct{}
}

func (s *stream) put(piece []byte, last bool) bool {
	select {
	case s.pieces <- piece:
	default:
		return false
	}
	if last {
		close(s.pieces)
	}
	return true
}

func (s *stream) abandon() {
	s.pieces <- nil
	close(s.pieces)
}

func (s *stream) wait() { <-s.ended }
