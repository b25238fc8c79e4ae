package topology

import (
	"context"
	"log/slog"

	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/tally"
)

// Env has the services that all virtual hosts of one server use. It does not change after the
// server has started.
type Env struct {
	Broker   door.Broker    // the broker that applies policies
	Policies *policy.Broker // the same broker, for questions about policies
	Auth     *auth.Store
	Log      *slog.Logger
	Clock    clock.Clock
	Refused  *tally.Counts   // counts refusals of limits; nil: they are not counted
	Context  context.Context // ends with the server
	// Background runs f in a new goroutine. Shutdown waits until f returns. After Shutdown no new
	// function starts.
	Background   func(f func())
	MaxExchanges int // exchanges of a virtual host
	MaxBindings  int // bindings of an exchange
}

// Sync waits until the broker has decided all earlier settlements and changes of credit. With a
// context of package inorder it also waits for the caller's earlier publishes.
func (e *Env) Sync(ctx context.Context) error {
	_, err := e.Broker.Settle(context.WithoutCancel(ctx), nil)
	return err
}
