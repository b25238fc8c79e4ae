package sink

import (
	"context"
	"log/slog"
	"time"
)

// reportTime is how often at most the log says that messages were parked.
const reportTime = time.Minute

// parked counts parked messages, for the status and the log.
func (r *Runner) parked(n int) {
	if n > 0 {
		r.stats.parked.Add(uint64(n))
		signal(r.bell)
	}
}

// report logs the messages parked in one line for each reportTime, until ctx ends.
func (s *session) report(ctx context.Context) {
	r := s.r
	before := r.stats.parked.Load()
	say := func() {
		now := r.stats.parked.Load()
		if now == before {
			return
		}
		st := r.Status()
		r.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, "sink parked messages", slog.String("sink", r.name), slog.Uint64("messages", now-before),
			slog.Uint64("parked", now), slog.Uint64("applied", st.Applied), slog.Int("held_back", st.HeldBack), slog.String("last_reason", st.LastError))
		before = now
	}
	defer say()
	for {
		select {
		case <-r.bell:
		case <-ctx.Done():
			return
		}
		say()
		t := r.opts.Clock.NewTimer(reportTime)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
