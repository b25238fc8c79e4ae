//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/internal/pgtest"
	"github.com/surgetank/surgetank/test/build"
	"github.com/surgetank/surgetank/test/kit/namespace"
)

// campaign is the state shared by all rounds.
type campaign struct {
	binary   string
	pgBin    string
	template string // a PostgreSQL data directory that each round copies
	dir      string
	keep     bool
	limit    time.Duration // limit of one round's time
}

func main() {
	if err := namespace.Own(0); err != nil {
		fmt.Fprintln(os.Stderr, "targets:", err)
	}
	c := &campaign{}
	seed := flag.Uint64("seed", 0, "play the round of this seed alone")
	first := flag.Uint64("first", 0, "the first seed of a campaign; 0: a random one")
	rounds := flag.Int("rounds", 12, "how many rounds")
	jobs := flag.Int("jobs", 2, "rounds at the same time")
	with := flag.String("with", "", "only rounds with this `action`")
	list := flag.Bool("list", false, "list the actions")
	out := flag.String("out", "", "`directory` for a dated file with the table; default none")
	flag.StringVar(&c.binary, "binary", "", "surgetank `program`; default: built from this module")
	flag.BoolVar(&c.keep, "keep", false, "leave the directories of all rounds behind, not only of those that failed")
	flag.DurationVar(&c.limit, "limit", 2*time.Minute, "give up a round after this long")
	flag.Parse()
	if *list {
		for _, a := range actions {
			fmt.Println(a.name)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	done, err := c.prepare(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "targets:", err)
		os.Exit(1)
	}
	var t *tally
	if *seed != 0 {
		t = c.all(ctx, []*plan{draw(*seed, "")}, 1)
	} else {
		t = c.all(ctx, plans(*first, *rounds, *with), *jobs)
	}
	done()
	fmt.Print(t.table())
	if *out != "" {
		if err := t.record(*out); err != nil {
			fmt.Fprintln(os.Stderr, "targets:", err)
			os.Exit(1)
		}
	}
	if t.failed > 0 || ctx.Err() != nil {
		os.Exit(1)
	}
}

// plans draws a plan for each of consecutive seeds.
func plans(first uint64, rounds int, with string) (list []*plan) {
	if first == 0 {
		first = 1 + rand.Uint64N(1<<40)
	}
	for seed, tries := first, 0; len(list) < rounds && tries < 1000*rounds; seed, tries = seed+1, tries+1 {
		if p := draw(seed, with); p != nil {
			list = append(list, p)
		}
	}
	return list
}

// prepare makes the server and the directories that all rounds use. The returned function removes
// them.
func (c *campaign) prepare(ctx context.Context) (func(), error) {
	var err error
	if c.dir, err = os.MkdirTemp("", "surgetank-targets-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(c.dir, 0o755); err != nil { // PostgreSQL runs as another user
		return nil, err
	}
	if c.binary == "" {
		if c.binary, err = build.Server(ctx, c.dir, "surgetank", "", nil); err != nil {
			return nil, err
		}
	}
	if c.binary, err = filepath.Abs(c.binary); err != nil {
		return nil, err
	}
	if c.pgBin, err = pgtest.Find(); err != nil {
		return nil, err
	}
	c.template = filepath.Join(c.dir, "template")
	if err := pgtest.Template(c.pgBin, c.template); err != nil {
		return nil, err
	}
	return func() {
		_ = os.RemoveAll(c.template)
		_ = os.Remove(filepath.Join(c.dir, "surgetank"))
		_ = os.Remove(c.dir) // fails if a failed round's directory was kept
	}, nil
}

// all runs the plans and reports those that failed.
func (c *campaign) all(ctx context.Context, list []*plan, jobs int) *tally {
	t := newTally(namespace.Inside())
	work := make(chan *plan)
	var wait sync.WaitGroup
	for range jobs {
		wait.Go(func() {
			for p := range work {
				r := c.one(ctx, p)
				if ctx.Err() != nil {
					return // stopped by a signal, so there is no result
				}
				t.add(r)
			}
		})
	}
	for _, p := range list {
		select {
		case work <- p:
		case <-ctx.Done():
		}
	}
	close(work)
	wait.Wait()
	return t
}

func (c *campaign) one(ctx context.Context, p *plan) *result {
	dir, err := os.MkdirTemp(c.dir, fmt.Sprintf("round-%d-", p.seed))
	if err == nil {
		err = os.Chmod(dir, 0o755) // PostgreSQL runs as another user
	}
	if err != nil {
		return &result{plan: p, err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	r := c.round(newWorld(ctx, c, p, dir))
	if r.ok() && !c.keep {
		r.remove()
	}
	return r
}
