package session

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// interrupts are what other goroutines ask of a connection's reader while it waits for its client.
// Any goroutine may call the methods.
type interrupts struct {
	nc     net.Conn
	forced atomic.Pointer[wire.Error] // the error that the connection is to end with
	kicked chan struct{}              // closed when forced is set

	mu      sync.Mutex
	actions []func() error // for the reader to run
}

// kick sets the error that the connection is to end with. The first error stands, and kick returns
// false for every other.
func (i *interrupts) kick(err *wire.Error) bool {
	if !i.forced.CompareAndSwap(nil, err) {
		return false
	}
	close(i.kicked)
	return true
}

// failure returns the error that the connection is to end with, nil if it may go on.
func (i *interrupts) failure() error {
	if f := i.forced.Load(); f != nil {
		return &failure{why: f}
	}
	return nil
}

// interrupt has the reader run f soon.
func (i *interrupts) interrupt(f func() error) {
	i.mu.Lock()
	i.actions = append(i.actions, f)
	i.mu.Unlock()
	i.wakeReader()
}

// wakeReader ends the read that the reader waits in.
func (i *interrupts) wakeReader() { i.nc.SetReadDeadline(time.Unix(1, 0)) }

// run runs the actions that were left, on the reader goroutine. It tells whether there were any.
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

// pending tells whether the reader was asked for something.
func (i *interrupts) pending() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.actions) > 0 || i.forced.Load() != nil
}
