// Package inorder keeps publishes and settlements of one caller in order.
//
// A broker runs settlements before publishes that wait, so that publishers do not starve consumers.
// A caller that publishes a result and then acks its input needs the opposite: the ack must not be
// stored before the result. Such a caller makes all its calls with a context that With returned.
package inorder

import (
	"context"
	"sync/atomic"
)

// Line counts the commands of one caller that wait for the broker's loop. Later settlements of the
// caller must not overtake these commands.
type Line struct{ waiting atomic.Int64 }

type key struct{}

// With returns a context for calls of one caller. If the order of two calls matters, the caller
// must not make them at the same time.
func With(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, new(Line)) }

// Of returns the Line that With put into a context, or nil.
func Of(ctx context.Context) *Line {
	l, _ := ctx.Value(key{}).(*Line)
	return l
}

// Join counts a command that begins to wait.
func (l *Line) Join() { l.waiting.Add(1) }

// Leave ends the wait of a command that the loop has decided.
func (l *Line) Leave() { l.waiting.Add(-1) }

// Waits reports whether commands of the caller wait.
func (l *Line) Waits() bool { return l != nil && l.waiting.Load() > 0 }
