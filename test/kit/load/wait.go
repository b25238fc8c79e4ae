// Package load has the parts of every load: messages whose every byte can be checked, and waits.
package load

import (
	"context"
	"time"
)

// Sleep waits for d. It returns false if stop is closed first.
func Sleep(stop <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-stop:
		return false
	case <-t.C:
		return true
	}
}

// Pause is Sleep for a context: it returns the cause if ctx ends first.
func Pause(ctx context.Context, d time.Duration) error {
	if !Sleep(ctx.Done(), d) {
		return context.Cause(ctx)
	}
	return nil
}

// Until polls a condition of a real process. It returns false if the condition was not met within
// the limit.
func Until(ctx context.Context, limit time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ok() {
		if !Sleep(ctx.Done(), 5*time.Millisecond) {
			return ok()
		}
	}
	return true
}
