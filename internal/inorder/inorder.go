// Package inorder keeps publishes and settlements of one caller in order.
//
// A broker serves settlements before publishes that wait, so that publishers do not starve
// consumers. A caller that publishes a result and then acks its input needs the opposite: if the ack
// is stored, the result is stored too. Such a caller makes its calls with a context of With.
package inorder

import (
	"context"
	"sync/atomic"
)

// Line is one caller. It counts the caller's commands that wait for the broker's loop and that
// later settlements of the caller must not overtake.
type Line struct{ waiting atomic.Int64 }

type key struct{}

// With returns a context for calls of one caller. The caller must not use it for two calls at the
// same time, if their order matters.
func With(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, new(Line)) }

// Of returns the line of a context, or nil.
func Of(ctx context.Context) *Line {
	l, _ := ctx.Value(key{}).(*Line)
	return l
}

// Join adds a command.
func (l *Line) Join() { l.waiting.Add(1) }

// Leave removes a command, after the loop decided it.
func (l *Line) Leave() { l.waiting.Add(-1) }

// Waits reports whether commands of the caller wait.
func (l *Line) Waits() bool { return l != nil && l.waiting.Load() > 0 }
