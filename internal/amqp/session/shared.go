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

// Shared is what the connections of one server share.
type Shared struct {
	*topology.Env
	vhosts *topology.Registry
	limits Limits
	props  wire.Table // server properties

	replies       replyTable
	departures    *lobby.Lobby // has the connections that wait for their clients to hang up
	refusedLogins atomic.Uint64
	stopping      atomic.Bool // the server shuts down; set before it interrupts the readers
	budget        budget
	alarms        alarms
}

// NewShared makes what the connections of a server share. props are the server properties that
// clients are shown.
func NewShared(e *topology.Env, vhosts *topology.Registry, limits Limits, props wire.Table) *Shared {
	s := &Shared{Env: e, vhosts: vhosts, limits: limits, props: props, departures: lobby.New(limits.MaxStrangers, limits.MaxStrangers)}
	s.budget.srv = s
	s.alarms.now.Store(&alarm{over: make(chan struct{})})
	return s
}

// Stop says that the server shuts down: connections that wait for their clients to hang up wait no
// longer. The caller sets it before it calls their ShutDown.
func (s *Shared) Stop() { s.stopping.Store(true) }

// Held is the number of bytes that unfinished messages and transactions hold.
func (s *Shared) Held() int64 { return s.budget.held() }

// RefusedLogins is the number of logins with a wrong user name or password.
func (s *Shared) RefusedLogins() uint64 { return s.refusedLogins.Load() }

// Departing is the number of connections that wait for their clients to hang up.
func (s *Shared) Departing() int {
	n, _ := s.departures.Count()
	return n
}

// settleAll settles outside of any connection's life, and waits.
func (s *Shared) settleAll(list []surgetank.Settlement) {
	if _, err := s.Broker.Settle(context.WithoutCancel(s.Context), list); err != nil {
		s.Log.Warn("deliveries could not be given back; their leases end with the broker", "messages", len(list), "err", err)
	}
}

// alarms are the reasons to hold publishers back.
type alarms struct {
	now atomic.Pointer[alarm]

	mu      sync.Mutex
	reasons map[string]struct{}
}

// alarm is why publishers are held back; over is closed when it changes.
type alarm struct {
	reason string // "" when nobody is held back
	over   chan struct{}
}

// SetAlarm turns a reason to hold publishers back on or off, as "low on disk" or "low on memory".
// While any is on, connections that publish are told (connection.blocked) and not read further.
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
