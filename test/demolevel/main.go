package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// full are the sizes of a whole run: about four minutes on two cores.
func full() options {
	return options{undisturbed: 15 * time.Second, rest: 4 * time.Second, rate: 150, rows: 30_000, batchRows: 300_000, lanes: 4,
		slow: 6 * time.Second, down: 6 * time.Second, after: 5 * time.Second, outages: true, rounds: 1}
}

// short are the sizes of a smoke run.
func short() options {
	return options{undisturbed: time.Second, rest: 500 * time.Millisecond, rate: 50, rows: 4000, batchRows: 30_000, lanes: 4,
		slow: time.Second, down: time.Second, after: time.Second, outages: true, rounds: 1}
}

func main() {
	o := full()
	isShort := flag.Bool("short", false, "a smoke run of 20 seconds; its figures mean nothing")
	flag.DurationVar(&o.undisturbed, "undisturbed", o.undisturbed, "length of the first measurement, without a drain")
	flag.DurationVar(&o.rest, "rest", o.rest, "length of the measurement before each drain")
	flag.Float64Var(&o.rate, "rate", o.rate, "transactions of the foreground in a second")
	flag.IntVar(&o.rows, "rows", o.rows, "messages that are drained in single rows")
	flag.IntVar(&o.batchRows, "batch-rows", o.batchRows, "messages that are drained in batches")
	flag.IntVar(&o.lanes, "lanes", o.lanes, "lanes of the sink")
	flag.DurationVar(&o.slow, "slow", o.slow, "how long other queries slow the database down")
	flag.DurationVar(&o.down, "down", o.down, "how long the killed database is away")
	flag.DurationVar(&o.after, "after", o.after, "how long the foreground is watched after a disturbed drain")
	flag.BoolVar(&o.outages, "outages", o.outages, "run the disturbed drains")
	flag.BoolVar(&o.fixed, "fixed", false, "drain with fixed limits instead: what a controller of the limit can reach (a quarter of an hour)")
	flag.IntVar(&o.rounds, "rounds", 1, "how often each drain is run; the last table has the medians")
	flag.Float64Var(&o.calm, "calm", 0, "wait before each drain until other programs use less than this `share` of the processors, and repeat a drain with more; 0: do not wait")
	flag.StringVar(&o.only, "only", "", "run only the drains whose `name` has this text, such as rows, batches, naive or outage_rows")
	flag.StringVar(&o.data, "data", "", "`directory` for the data of the Surgetank server, such as one on another disk than the database; default: beside the database")
	flag.StringVar(&o.binary, "binary", "", "surgetank `program`; default: built from this module")
	out := flag.String("out", "", "`directory` for a dated file with the tables and plots, such as bench/results; default none")
	limit := flag.Duration("timeout", time.Hour, "stop after this time")
	flag.Parse()
	if *isShort {
		given := o
		o = short()
		o.binary, o.only, o.fixed, o.rounds, o.calm = given.binary, given.only, given.fixed, given.rounds, given.calm
	}
	start := time.Now()
	o.say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	r, err := run(ctx, o)
	if err == nil {
		fmt.Println(r.markdown())
		if *out != "" {
			err = r.record(*out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demolevel:", err)
		os.Exit(1)
	}
	if len(r.broken()) > 0 {
		os.Exit(1)
	}
}
