package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/surgetank/surgetank/test/kit/report"
)

func main() {
	o := options{}
	flag.StringVar(&o.input, "input", os.Getenv("CHAOS_INPUT"), "NDJSON `file` to repeat; default CHAOS_INPUT, else made-up lines")
	flag.IntVar(&o.messages, "messages", 200_000, "lines to publish")
	flag.IntVar(&o.kills, "kills", 10, "kill -9 of the server, and as many of PostgreSQL")
	flag.IntVar(&o.lanes, "lanes", 4, "lanes of the sink")
	flag.Uint64Var(&o.seed, "seed", 0, "of the moments of the kills; 0: a random one, which is printed")
	flag.StringVar(&o.binary, "binary", "", "surgetank `program`; default: built from this module")
	flag.BoolVar(&o.keep, "keep", false, "leave the temporary directory behind")
	out := flag.String("out", "", "`directory` for a dated file with the summary, such as bench; default none")
	limit := flag.Duration("timeout", 30*time.Minute, "give up after this long")
	flag.Parse()
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	start := time.Now()
	o.say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	sum, err := run(ctx, o)
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: seed %d: %v\n", o.seed, err)
		os.Exit(1)
	}
	fmt.Println(sum)
	if *out != "" {
		if err := record(*out, o, sum); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
	}
	if !sum.ok() {
		os.Exit(1)
	}
}

// record appends the summary to the day's file.
func record(dir string, o options, sum summary) error {
	input := "made-up lines"
	if o.input != "" {
		input = filepath.Base(o.input) + " repeated"
	}
	return report.Append(dir, "chaos-DATE.md", fmt.Sprintf("- %s, %s/%s, %d CPUs, %s, %d lanes:\n  %s\n",
		report.Now(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), input, o.lanes, sum))
}
