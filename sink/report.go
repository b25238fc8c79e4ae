package sink

import (
	"context"
	"log/slog"
	"time"
)

// reportTime is the least time between two log lines about parked messages.
const reportTime = time.Minute

// parked counts parked messages, for the status and the log.
func (r *Runner) parked(n int) {
	if n > 0 {
		r.stats.parked.Add(uint64(n))
		signal(r.bell)
	}
}

// report logs the number of parked messages, at most one line in each reportTime, until ctx ends.
func (s *session) report(ctx context.Context) {
	r := s.r
	say := func() {
		now := r.stats.parked.Load()
		if now == r.reported {
			return
		}
		st := r.Status()
		r.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, "sink parked messages", slog.String("sink", r.name), slog.Uint64("messages", now-r.reported),
			slog.Uint64("parked", now), slog.Uint64("applied", st.Applied), slog.Int("held_back", st.HeldBack), slog.String("last_reason", st.LastError))
		r.reported = now
	}
	defer say()
	for {
		select {
		case <-r.bell:
		case <-ctx.Done():
			return
		}
		say()
		t := r.opts.clock.NewTimer(reportTime)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
