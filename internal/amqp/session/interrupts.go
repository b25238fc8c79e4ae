package session

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// interrupts has the actions that other goroutines leave for a connection's reader while it waits
// for its client. Any goroutine may call the methods.
type interrupts struct {
	nc     net.Conn
	forced atomic.Pointer[wire.Error] // the error that ends the connection
	kicked chan struct{}              // closed when forced is set

	mu      sync.Mutex
	actions []func() error // actions for the reader to run
}

// kick sets the error that ends the connection. Only the first error counts: kick returns false for
// each later one.
func (i *interrupts) kick(err *wire.Error) bool {
	if !i.forced.CompareAndSwap(nil, err) {
		return false
	}
	close(i.kicked)
	return true
}

// failure returns the error that ends the connection, or nil while there is none.
func (i *interrupts) failure() error {
	if f := i.forced.Load(); f != nil {
		return &failure{why: f}
	}
	return nil
}

// interrupt makes the reader run f soon.
func (i *interrupts) interrupt(f func() error) {
	i.mu.Lock()
	i.actions = append(i.actions, f)
	i.mu.Unlock()
	i.wakeReader()
}

// wakeReader interrupts the reader's read.
func (i *interrupts) wakeReader() { i.nc.SetReadDeadline(time.Unix(1, 0)) }

// run runs the waiting actions. The reader calls it. It reports whether there were any.
func (i *interrupts) run() (ran bool, err error) {
	i.mu.Lock()
	actions := i.actions
	i.actions = nil
	i.mu.Unlock()
	for _, a := range actions {
		if err := a(); err != nil {
			return true, err
		}
	}
	return len(actions) > 0, nil
}

// pending reports whether actions wait for the reader.
func (i *interrupts) pending() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.actions) > 0 || i.forced.Load() != nil
}
