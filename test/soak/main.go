//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/report"
)

func main() {
	o := options{progress: func(format string, args ...any) {
		fmt.Printf("%s  %s\n", time.Now().UTC().Format("15:04:05"), fmt.Sprintf(format, args...))
	}}
	flag.DurationVar(&o.length, "for", 30*time.Minute, "how long to hold the load")
	flag.DurationVar(&o.warmUp, "warm-up", 0, "how long to measure the capacity; default 45s, at most a quarter of -for")
	flag.Float64Var(&o.share, "share", 0.7, "of the measured capacity to hold")
	flag.Float64Var(&o.rate, "rate", 0, "messages a second, instead of a share of the capacity")
	flag.DurationVar(&o.kills, "kill-every", 30*time.Second, "time between kill -9 of the server; 0: none")
	flag.Float64Var(&o.calm, "calm", 1./3, "share of the time, at its end, without kills")
	flag.DurationVar(&o.settle, "settle", 0, "how long memory may take to come back at the end; default 150s")
	flag.DurationVar(&o.tick, "tick", time.Minute, "time between lines of progress")
	flag.StringVar(&o.binary, "binary", "", "surgetank `program`; default: built from this module")
	flag.BoolVar(&o.keep, "keep", false, "leave the data directory and the server's log behind")
	flag.Uint64Var(&o.seed, "seed", 0, "of what clients do and when kills come; 0: a random one, which is printed")
	out := flag.String("out", "", "`directory` for a dated file with the result, such as bench/results; default none")
	note := flag.String("note", "", "a remark for the result, such as what else the machine was doing")
	memory := flag.Bool("memory", false, "instead, show that memory is bounded with clients that misbehave")
	m := memoryOptions{progress: o.progress}
	flag.IntVar(&m.messages, "messages", 1_000_000, "with -memory: messages of 1 KiB in the backlog")
	flag.IntVar(&m.connections, "connections", 10_000, "with -memory: idle connections")
	flag.IntVar(&m.polls, "polls", 1000, "with -memory: clients over HTTP")
	flag.DurationVar(&m.flood, "flood", 15*time.Second, "with -memory: how long publishers flood")
	flag.StringVar(&m.only, "only", "", "with -memory: run the cases whose name matches this `expression`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *memory {
		m.binary = o.binary
		if err := performMemory(ctx, m, *out, *note); err != nil {
			fmt.Fprintln(os.Stderr, "memory:", err)
			os.Exit(1)
		}
		return
	}
	if err := perform(ctx, o, *out, *note); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

var errBroken = errors.New("a promise was broken, or what was taken did not come back; see above")

func perform(ctx context.Context, o options, out, note string) error {
	s, err := run(ctx, o)
	if s == nil {
		return err
	}
	text := s.report(heading("soak", s.began, note))
	fmt.Println("\n" + text)
	if out != "" {
		err = errors.Join(err, report.Append(out, "DATE-soak.md", text+"\n"))
	}
	if err == nil && !s.ok() {
		err = errBroken
	}
	return err
}

// performMemory runs the cases of -memory.
func performMemory(ctx context.Context, o memoryOptions, out, note string) error {
	began := time.Now()
	rows, err := memoryRun(ctx, o, memoryCases)
	if len(rows) == 0 {
		return err
	}
	text, bad := memoryReport(heading("bounded memory", began, note), rows)
	fmt.Println("\n" + text)
	if out != "" {
		err = errors.Join(err, report.Append(out, "DATE-memory.md", text+"\n"))
	}
	if err == nil && len(bad) > 0 {
		err = fmt.Errorf("not held: %s", strings.Join(bad, "; "))
	}
	return err
}

// heading returns the report's heading: the run, the machine, the time and the commit.
func heading(what string, began time.Time, note string) string {
	h := fmt.Sprintf("%s, %s UTC, commit %s, %s/%s, %d CPUs, %s, load average before %s", what, began.UTC().Format("2006-01-02 15:04"), report.Commit(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), runtime.Version(), loadBefore)
	if n, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil && n != 20 {
		h += fmt.Sprintf(", nice %d", 20-n) // the system call returns 20 minus the niceness
	}
	if note != "" {
		h += ". " + note
	}
	return h
}

// loadBefore is the machine's load average when the program started. It shows other activity.
var loadBefore = func() string {
	text, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(text)); err == nil && len(f) > 0 {
		return f[0]
	}
	return "unknown"
}()
