package topology

import (
	"context"
	"log/slog"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/policy"
	"github.com/surgetank/surgetank/internal/tally"
)

// Env is what the virtual hosts of one server work with. It is constant once the server has begun.
type Env struct {
	Broker   surgetank.Broker // with policies in front
	Policies *policy.Broker   // the same, with what only policies answer
	Auth     *auth.Store
	Log      *slog.Logger
	Clock    clock.Clock
	Refused  *tally.Counts   // what limits refused; nil: it is not counted
	Context  context.Context // ends with the server
	// Background runs f until it ends; the server waits for it before it has shut down. After that
	// nothing new starts.
	Background   func(f func())
	MaxExchanges int // of a virtual host
	MaxBindings  int // of an exchange
}

// Sync waits until the broker has decided everything that it was asked before.
func (e *Env) Sync() error {
	_, err := e.Broker.Settle(context.WithoutCancel(e.Context), nil)
	return err
}
