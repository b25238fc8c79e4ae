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
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/history"
	"github.com/surgetank/surgetank/test/kit/report"
)

// campaign is the state shared by all runs.
type campaign struct {
	binary string
	dir    string // parent of the directories of all runs
	seed   uint64
	long   bool
	scale  int // factor for the numbers of the short mode
	keep   bool
	limit  time.Duration // limit of one scenario's time
	say    func(format string, args ...any)

	injections *atomic.Int64 // count of the running scenario, for the progress display
}

func main() {
	if err := ownNamespace(); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
	}
	c := campaign{}
	flag.Uint64Var(&c.seed, "seed", 0, "of the schedule of faults; 0: a random one, which is printed")
	flag.StringVar(&c.binary, "binary", "", "surgetank `program`; default: built from this module")
	flag.BoolVar(&c.long, "long", false, "many injections of each fault")
	flag.IntVar(&c.scale, "scale", 1, "multiply the few injections of the short mode by this")
	flag.BoolVar(&c.keep, "keep", false, "leave the directories of all runs behind, not only of those that failed")
	flag.DurationVar(&c.limit, "limit", 0, "give up a scenario after this long; default 2m, with -long 30m")
	only := flag.String("only", "", "run only scenarios whose number or name matches this `expression`")
	list := flag.Bool("list", false, "list the scenarios and what each needs")
	out := flag.String("out", "", "`directory` for a dated file with the table, such as bench; default none")
	flag.Parse()
	if *list {
		for _, s := range scenarios {
			fmt.Printf("%-5s %s\n", s.id, s.fault)
		}
		return
	}
	chosen, err := choose(*only)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = c.all(ctx, chosen, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func choose(only string) ([]scenario, error) {
	if only == "" {
		return scenarios, nil
	}
	re, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	id := regexp.MustCompile("^(?:" + only + ")$")
	var chosen []scenario
	for _, s := range scenarios {
		if id.MatchString(s.id) || re.MatchString(s.fault) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no scenario is called %s; -list shows them", only)
	}
	return chosen, nil
}

// prepare sets the defaults and builds the server. The returned function removes everything that
// prepare made.
func (c *campaign) prepare(ctx context.Context) (func(), error) {
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	if c.limit == 0 {
		c.limit = 2 * time.Minute * time.Duration(max(1, c.scale))
		if c.long {
			c.limit = 30 * time.Minute
		}
	}
	dir, err := os.MkdirTemp("", "surgetank-faults-")
	if err != nil {
		return nil, err
	}
	c.dir = dir
	if c.binary == "" {
		if c.binary, err = buildServer(ctx, dir, "surgetank", nil); err != nil {
			return nil, err
		}
	}
	if c.binary, err = filepath.Abs(c.binary); err != nil {
		return nil, err
	}
	return func() {
		_ = os.Remove(filepath.Join(dir, "surgetank"))
		_ = os.RemoveAll(filepath.Join(dir, "builds"))
		_ = os.Remove(dir) // not empty if files of a run were kept
	}, nil
}

// all runs the chosen scenarios one after another and prints the table. It returns an error unless
// all passed.
func (c *campaign) all(ctx context.Context, chosen []scenario, out string) error {
	done, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	defer done()
	c.say = func(string, ...any) {}
	c.injections = new(atomic.Int64)
	began := time.Now()
	fmt.Printf("seed %d\n%s", c.seed, tableHead)
	var rows []row
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		w := c.watched(ctx, s)
		if ctx.Err() != nil {
			fmt.Printf("%s was stopped by a signal and does not count, as what would have come after it\n", s.id)
			break
		}
		fmt.Print(w.line(), w.details("  "))
		rows = append(rows, w)
	}
	sum := c.summary(rows, time.Since(began))
	fmt.Println(sum)
	if out != "" {
		if err := c.record(out, rows, sum); err != nil {
			return err
		}
	}
	return failed(rows)
}

// watched runs a scenario and reports its progress on standard error from time to time.
func (c *campaign) watched(ctx context.Context, s scenario) row {
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		began := time.Now()
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(os.Stderr, "faults: %s: %d injections after %.0f s\n", s.id, c.injections.Load(), time.Since(began).Seconds())
			}
		}
	})
	c.injections.Store(0)
	w := c.perform(ctx, s)
	close(done)
	wait.Wait()
	return w
}

// failed returns an error for rows that did not pass. A skipped row fails in CI, where nothing may
// be missing.
func failed(rows []row) error {
	var bad []string
	for i := range rows {
		switch v := rows[i].verdict(); {
		case v == history.Pass:
		case v == "skipped" && os.Getenv("CI") != "true":
		default:
			bad = append(bad, rows[i].ID)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("not passed: %s", strings.Join(bad, ", "))
	}
	return nil
}

// kept is the beginning of the note that says where a run's files are.
const kept = "kept in "

const tableHead = "" +
	"| fault | | injected | records checked | confirmed | lost | doubled | out of order | other | verdict | s |\n" +
	"|---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|\n"

// line returns the row as a line of a Markdown table.
func (w *row) line() string {
	if w.Skipped != "" {
		return fmt.Sprintf("| %s | %s | | | | | | | | SKIPPED: %s | |\n", w.ID, w.Fault, w.Skipped)
	}
	r := &w.Report
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %d | %d | %s | %.1f |\n", w.ID, w.Fault, w.Injected, r.Calls, r.Confirmed,
		r.Lost, r.Doubled, r.Disorder, r.Other, w.verdict(), w.Took.Seconds())
}

// details returns the text for below the table: why the row did not pass, and notes.
func (w *row) details(indent string) string {
	var b strings.Builder
	say := func(format string, args ...any) {
		fmt.Fprintf(&b, indent+"- %s: "+format+"\n", append([]any{w.ID}, args...)...)
	}
	if w.Err != nil {
		say("could not be carried out: %v", w.Err)
	}
	if w.Injected == 0 && w.Skipped == "" {
		say("nothing was injected")
	}
	for _, u := range w.Report.Unclear {
		say("undecided: %s", u)
	}
	for i, f := range w.Report.Findings {
		if i == 8 {
			say("… and %d findings more", len(w.Report.Findings)-i)
			break
		}
		say("%s", f)
	}
	for _, n := range w.Notes {
		say("%s", n)
	}
	return b.String()
}

func (c *campaign) summary(rows []row, took time.Duration) string {
	var passed, skipped, injected, calls, confirmed, lost, doubled, disorder, other int
	for i := range rows {
		w := &rows[i]
		switch w.verdict() {
		case history.Pass:
			passed++
		case "skipped":
			skipped++
		}
		injected += w.Injected
		calls += w.Report.Calls
		confirmed += w.Report.Confirmed
		lost += w.Report.Lost
		doubled += w.Report.Doubled
		disorder += w.Report.Disorder
		other += w.Report.Other
	}
	return fmt.Sprintf("faults: seed %d: %d of %d scenarios passed, %d skipped; %d injections, %d records checked, %d confirmed, lost %d, doubled %d, out of order %d, other %d; %.0f s",
		c.seed, passed, len(rows)-skipped, skipped, injected, calls, confirmed, lost, doubled, disorder, other, took.Seconds())
}

// record appends the table to the day's file.
func (c *campaign) record(dir string, rows []row, sum string) error {
	mode := "short"
	if c.long {
		mode = "long"
	}
	text := fmt.Sprintf("## %s, %s/%s, %d CPUs, %s\n\n%s", report.Now(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), mode, tableHead)
	below := ""
	for i := range rows {
		w := rows[i]
		w.Notes = slices.DeleteFunc(slices.Clone(w.Notes), func(n string) bool { return strings.HasPrefix(n, kept) })
		below += w.details("")
		text += w.line()
	}
	return report.Append(dir, "faults-DATE.md", fmt.Sprintf("%s\n%s\n%s\n\n", text, below, sum))
}
