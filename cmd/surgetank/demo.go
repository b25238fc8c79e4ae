package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/cmd/surgetank/internal/demo"
)

type demoCmd struct {
	Messages int64  `short:"n" default:"200000" help:"Order writes in the spike. Default ${default}."`
	Input    string `placeholder:"FILE" help:"Send the lines of this NDJSON file instead."`
	Rate     string `default:"12000/s" help:"Rows per time that are written to the database. Default ${default}."`
	Sink     string `placeholder:"DSN" help:"PostgreSQL to drain into, postgres://USER:PASSWORD@HOST/DATABASE. Default: a SQLite file."`
	Crash    bool   `help:"Kill the server with kill -9 in the middle of the spike, and start it again."`
	Keep     bool   `help:"Leave the directory (and the table) behind."`
	output
}

// Run runs the demo. The exit code says whether every write is in the database exactly once.
func (c *demoCmd) Run(s *session) error {
	rate, err := parseRate(c.Rate)
	if err != nil {
		return err
	}
	if c.Messages < 1 {
		return &failure{exitUsage, fmt.Errorf("--messages must be at least 1, not %d", c.Messages)}
	}
	if c.Sink != "" && !strings.HasPrefix(c.Sink, "postgres://") && !strings.HasPrefix(c.Sink, "postgresql://") {
		return &failure{exitUsage, fmt.Errorf("--sink must be a URL such as postgres://user:password@host/database")}
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program, to run the server from: %w", err)
	}
	show := newDemoView(s, c.JSON)
	result, err := demo.Run(s.ctx, demo.Options{
		Binary: binary, Messages: c.Messages, Input: c.Input, Rate: float64(rate), Postgres: c.Sink, Crash: c.Crash, Keep: c.Keep,
		Dial: func(server string) (surgetank.Broker, error) { return remote{Server: server}.dial() },
		PutSink: func(ctx context.Context, server, name string, spec map[string]any) error {
			return remote{Server: server}.call(ctx, http.MethodPut, spec, nil, "sinks", name)
		},
		Show: show.live, Say: show.say,
	})
	show.finish()
	if err != nil {
		return err
	}
	if c.JSON {
		if err := writeJSON(s.stdout, result); err != nil {
			return err
		}
	} else {
		if result.Parked > 0 {
			fmt.Fprintf(s.stdout, "parked  %s in the dead-letter queue: %s\n", plural(result.Parked, "message"), printable(result.Reason))
		}
		fmt.Fprintf(s.stdout, "\nread back from the database after %.1f s:\npublished %d  applied %d  lost %d  doubled %d\n",
			result.Seconds, result.Published, result.Applied, result.Lost, result.Doubled)
	}
	if !result.OK() {
		return &failure{exitFailed, fmt.Errorf("the database does not have every write exactly once")}
	}
	return nil
}

// demoView shows the progress of the demo: a live panel on a terminal, one line a second elsewhere.
type demoView struct {
	mu    sync.Mutex
	out   *session
	json  bool
	width int
	tty   bool
	lines int // number of lines of the panel on the screen
	last  time.Time
}

func newDemoView(s *session, json bool) *demoView {
	v := &demoView{out: s, json: json}
	if !json {
		v.width, v.tty = isTerminal(s.stdout)
	}
	return v
}

// say prints a line of text above the panel.
func (v *demoView) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.json {
		return
	}
	v.clear()
	fmt.Fprintf(v.out.stdout, format+"\n", args...)
}

func (v *demoView) live(l demo.Live) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.json:
	case v.tty:
		v.clear()
		v.draw(l)
	case time.Since(v.last) >= time.Second:
		v.last = time.Now()
		fmt.Fprintf(v.out.stdout, "%6.1fs  in %s/s  out %s/s  backlog %s  oldest %s  to drain %s\n", l.Elapsed.Seconds(),
			count(int64(l.InRate)), count(int64(l.OutRate)), count(l.Backlog), age(l.OldestAge), drain(l))
	}
}

func drain(l demo.Live) string {
	if l.Backlog > 0 && l.TimeToDrain == 0 {
		return "?"
	}
	return l.TimeToDrain.Round(100 * time.Millisecond).String()
}

// draw writes the panel; clear removes it again.
func (v *demoView) draw(l demo.Live) {
	wide := min(max(v.width-34, 10), 60)
	share := func(n int64) float64 { return float64(n) / float64(max(l.Total, 1)) }
	panel := []string{
		"",
		fmt.Sprintf("  confirmed %s %11s  %10s/s in", bar(share(l.Published), wide), count(l.Published), count(int64(l.InRate))),
		fmt.Sprintf("  applied   %s %11s  %10s/s out", bar(share(l.Applied), wide), count(l.Applied), count(int64(l.OutRate))),
		fmt.Sprintf("  backlog   %s %11s", bar(share(l.Backlog), wide), count(l.Backlog)),
		fmt.Sprintf("  oldest %s · time to drain %s · %.1f s", age(l.OldestAge), drain(l), l.Elapsed.Seconds()),
	}
	for _, line := range panel {
		fmt.Fprintln(v.out.stdout, line)
	}
	v.lines = len(panel)
}

func (v *demoView) clear() {
	if v.lines > 0 {
		fmt.Fprintf(v.out.stdout, "\x1b[%dA\x1b[J", v.lines)
		v.lines = 0
	}
}

func (v *demoView) finish() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
}
