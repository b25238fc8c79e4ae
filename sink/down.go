package sink

import (
	"context"
	"errors"

	"github.com/surgetank/surgetank/internal/door"
)

// reportDown tells the queue that the target is down, if err says so. The breaker of the queue then
// opens. A report settles nothing and counts no attempt. A busy target is not down: it gets less
// load.
func (r *Runner) reportDown(err error) {
	var e *Error
	if !errors.As(err, &e) || e.Class != Down {
		return
	}
	r.governor.down()
	if e.Busy {
		return
	}
	r.isDown = true
	r.report(door.TargetReport{RetryAfter: e.RetryAfter})
}

// reportUp tells the queue that a target which was down can be opened again. The breaker then need
// not wait longer for its probe.
func (r *Runner) reportUp() {
	if r.isDown {
		r.isDown = false
		r.report(door.TargetReport{Up: true})
	}
}

func (r *Runner) report(t door.TargetReport) {
	ctx, cancel := context.WithTimeout(context.Background(), r.opts.Lease)
	defer cancel()
	// Without a broker or a queue there is no breaker, and the session finds out by itself.
	_ = r.broker.ReportTarget(ctx, r.spec.Queue, t)
}
