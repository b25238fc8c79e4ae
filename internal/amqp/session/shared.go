package session

import (
	"context"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/topology"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/lobby"
)

// Shared has the state that all connections of a server use.
type Shared struct {
	*topology.Env
	vhosts *topology.Registry
	limits Limits
	props  wire.Table // server properties

	replies       replyTable
	departures    *lobby.Lobby // connections that have ended and whose clients have not hung up
	refusedLogins atomic.Uint64
	stopping      atomic.Bool // the server shuts down; set before it interrupts the readers
	budget        budget
	alarms        alarms
}

// NewShared makes the Shared of a server. props are the server properties that clients get.
func NewShared(e *topology.Env, vhosts *topology.Registry, limits Limits, props wire.Table) *Shared {
	s := &Shared{Env: e, vhosts: vhosts, limits: limits, props: props, departures: lobby.New(limits.MaxBeforeLogin, limits.MaxBeforeLogin)}
	s.budget.srv = s
	s.alarms.now.Store(&alarm{over: make(chan struct{})})
	return s
}

// Stop marks that the server shuts down. Connections then stop waiting for their clients to hang
// up. The caller calls Stop before their ShutDown.
func (s *Shared) Stop() { s.stopping.Store(true) }

// Reserved returns the number of bytes that unfinished messages and transactions reserve.
func (s *Shared) Reserved() int64 { return s.budget.reserved() }

// RefusedLogins returns the number of logins with a wrong user name or password.
func (s *Shared) RefusedLogins() uint64 { return s.refusedLogins.Load() }

// Departing returns the number of connections that wait for their clients to hang up.
func (s *Shared) Departing() int {
	n, _ := s.departures.Count()
	return n
}

// settleAll settles deliveries that no open channel has any more, and waits for the broker.
func (s *Shared) settleAll(list []surgetank.Settlement) {
	if _, err := s.Broker.Settle(context.WithoutCancel(s.Context), list); err != nil {
		s.Log.Warn("deliveries could not be returned to their queues; their leases end when the broker closes", "messages", len(list), "err", err)
	}
}

// alarms has the reasons to block publishers.
type alarms struct {
	now atomic.Pointer[alarm]

	mu      sync.Mutex
	reasons map[string]struct{}
}

// alarm is one state of the reasons. over is closed when the state changes.
type alarm struct {
	reason string // "" while no publisher is blocked
	over   chan struct{}
}

// SetAlarm turns a reason to block publishers on or off, such as "low on disk" or "low on memory".
// While any reason is on, the server sends connection.blocked to connections that publish, and
// stops reading from them.
func (s *Shared) SetAlarm(reason string, on bool) {
	a := &s.alarms
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, is := a.reasons[reason]; is == on {
		return
	}
	if !on {
		delete(a.reasons, reason)
	} else if a.reasons == nil {
		a.reasons = map[string]struct{}{reason: {}}
	} else {
		a.reasons[reason] = struct{}{}
	}
	reasons := make([]string, 0, len(a.reasons))
	for r := range a.reasons {
		reasons = append(reasons, r)
	}
	sort.Strings(reasons)
	old := a.now.Swap(&alarm{reason: strings.Join(reasons, " & "), over: make(chan struct{})})
	close(old.over)
}
