//go:build linux

// Command amqp measures RabbitMQ and Surgetank with one AMQP 0-9-1 client program,
// rabbitmq/amqp091-go, in one run. Each measurement starts a new server with an empty directory,
// and the servers alternate. Client and server share the machine, so the client's cost is included.
//
//	go run ./bench/amqp                                       everything; RabbitMQ from the Debian package rabbitmq-server
//	go run ./bench/amqp -workloads publish-1k-8,e2e -runs 5   some workloads, five runs of each
//	go run ./bench/amqp -targets amqp -addr HOST:5672         any running server
//	go run ./bench/amqp -report                               the report again, from the existing results
//
// Every run is a line of bench/results/DATE-amqp.jsonl. The report, a Markdown file of the same
// name, is made from these lines. Absolute figures depend on the machine and the time; ratios
// within a run are comparable.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/build"
)

// options are the flags.
type options struct {
	workloads, targets string
	runs               int
	secs, warm         time.Duration
	backlog            int
	backlogRuns        int
	dir, out, name     string
	rabbitmq           string
	surgetank          string
	serveFlags         string
	addr, login        string
	pid                int
	lean, reportOnly   bool
	clientProfile      string
	floorAddr          string
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench/amqp", flag.ContinueOnError)
	f.StringVar(&o.workloads, "workloads", strings.Join(workloadNames(), ","), "workloads, separated by commas")
	f.StringVar(&o.targets, "targets", strings.Join([]string{classic, quorum, surgetank}, ","), "targets, separated by commas; amqp is any server, with -addr; floor is one that keeps nothing")
	f.IntVar(&o.runs, "runs", 3, "runs of each workload against each target; medians are reported")
	f.DurationVar(&o.secs, "secs", 5*time.Second, "how long each measurement takes")
	f.DurationVar(&o.warm, "warm", time.Second, "how long each goes on before it is measured")
	f.IntVar(&o.backlog, "backlog", 2_000_000, "messages of the workload backlog")
	f.IntVar(&o.backlogRuns, "backlog-runs", 1, "runs of the workload backlog, which takes minutes")
	f.StringVar(&o.dir, "dir", "", "where the servers' data goes; put it on the disk to be measured (default: the temporary directory)")
	f.StringVar(&o.out, "out", "bench/results", "folder for the dated results")
	f.StringVar(&o.name, "name", time.Now().UTC().Format(time.DateOnly)+"-amqp", "name of the results' files, without extension")
	f.StringVar(&o.rabbitmq, "rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server", "RabbitMQ's start script")
	f.StringVar(&o.surgetank, "surgetank", "", "surgetank binary (default: built from ./cmd/surgetank)")
	f.StringVar(&o.serveFlags, "serve-flags", "", "more flags for surgetank serve, separated by spaces")
	f.StringVar(&o.addr, "addr", "", "target amqp: host and port of the server; the queues it uses, surgetank-bench-NNNN, are emptied first")
	f.StringVar(&o.login, "login", "guest:guest", "target amqp: user and password")
	f.IntVar(&o.pid, "pid", 0, "target amqp: process whose CPU time and memory to measure, with its children")
	f.BoolVar(&o.lean, "lean", false, "gather the client's writes and read in large pieces: less client, more server")
	f.BoolVar(&o.reportOnly, "report", false, "measure nothing; write the report from the results there are")
	f.StringVar(&o.floorAddr, "floor", "", "be the target floor at this address, until killed; the program starts itself so")
	f.StringVar(&o.clientProfile, "cpuprofile", "", "write a CPU profile of the client there")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; everything is said with flags, see -h", f.Arg(0))
	case o.runs < 1 || o.backlogRuns < 1 || o.backlog < 1 || o.secs <= 0 || o.warm < 0:
		return nil, errors.New("-runs, -backlog-runs, -backlog and -secs must be positive, and -warm not negative")
	}
	return o, nil
}

// workload is one kind of measurement. It runs on a new, empty server.
type workload struct {
	name, what string
	measure    func(context.Context, *options, target, *server) (result, error)
}

var workloads = []workload{
	{publish1, "Confirmed publishing of 1 KiB to one queue: 1 connection, up to 1,000 unconfirmed.", measurePublish(1, 1000, 1)},
	{publish8, "The same with 8 connections, up to 1,000 unconfirmed each.", measurePublish(8, 1000, 1)},
	{sync1, "Confirmed publishing of 1 KiB, one message in flight: 1 connection.", measurePublish(1, 1, 1)},
	{sync64, "The same with 64 connections.", measurePublish(64, 1, 1)},
	{endToEnd, "4 publishers (up to 1,000 unconfirmed) and 4 consumers (prefetch 500, every message acked by itself), 1 KiB; messages a second until the queue is empty, latency from publish to receive.", measureEndToEnd(0)},
	{endToEnd5k, "The same at 5,000 messages a second; latency from the time a message was due to its receipt.", measureEndToEnd(5000)},
	{queues1000, "Confirmed publishing of 1 KiB to 1,000 queues in turn, from 8 connections, up to 1,000 unconfirmed each.", measurePublish(8, 1000, 1000)},
	{backlog2m, "256 B messages without a consumer from 4 publishers; then kill -9 and start, clean stop and start (each from process start to the first message received), and 4 consumers take all out.", measureBacklog},
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return names
}

func pickWorkloads(names string) ([]workload, error) {
	var picked []workload
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-workloads: there is no workload %q; there are %s", name, strings.Join(workloadNames(), ", "))
		}
		picked = append(picked, workloads[i])
	}
	return picked, nil
}

func main() {
	// The client's garbage is small and short-lived. Rare collections leave more CPU time to the
	// servers.
	debug.SetGCPercent(1000)
	o, err := parseOptions(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench/amqp:", err)
		os.Exit(2)
	}
	if o.floorAddr != "" {
		fmt.Fprintln(os.Stderr, "bench/amqp:", serveFloor(o.floorAddr))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/amqp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) (err error) {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	lines := filepath.Join(o.out, o.name+".jsonl")
	if !o.reportOnly {
		if o.clientProfile != "" {
			f, err := os.Create(o.clientProfile)
			if err != nil {
				return err
			}
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
		}
		measured, failed := measure(ctx, o, lines)
		if measured == 0 {
			return failed
		}
		err = failed
	}
	results, readErr := readResults(lines)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	path := filepath.Join(o.out, o.name+".md")
	writeErr := os.WriteFile(path, []byte(report(summarize(results), machine())), 0o644)
	fmt.Println("written to", path)
	return errors.Join(err, writeErr)
}

// measure runs every workload against every target (a server and a kind of queue). Runs of the
// targets alternate. It returns the number of runs added to the results. A failed run is reported
// at once, and the next runs continue.
func measure(ctx context.Context, o *options, lines string) (measured int, err error) {
	picked, err := pickTargets(o.targets)
	if err != nil {
		return 0, err
	}
	work, err := pickWorkloads(o.workloads)
	if err != nil {
		return 0, err
	}
	useLean = o.lean
	dir, err := os.MkdirTemp(o.dir, "surgetank-bench-amqp-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // RabbitMQ may run as a user of its own
		return 0, err
	}
	if err := findServers(ctx, o, picked, dir); err != nil {
		return 0, err
	}
	invocation := time.Now().UTC().Format(time.RFC3339)
	failures := 0
	for _, w := range work {
		runs := o.runs
		if w.name == backlog2m {
			runs = o.backlogRuns
		}
		fmt.Printf("\n%s: %s\n", w.name, w.what)
		for n := range runs {
			for _, t := range picked {
				r, err := measureOne(ctx, o, w, t, filepath.Join(dir, "server"))
				if ctx.Err() != nil {
					return measured, errors.New("interrupted")
				}
				if err != nil {
					fmt.Fprintf(os.Stderr, "bench/amqp: %s against %s: %v\n", w.name, t.name, err)
					failures++
					continue
				}
				r.Invocation, r.Time, r.Run = invocation, time.Now().UTC().Format(time.RFC3339), n+1
				if err := appendResult(lines, r); err != nil {
					return measured, err
				}
				measured++
				fmt.Println(r.line())
			}
		}
	}
	if failures > 0 {
		return measured, fmt.Errorf("%d runs failed, as reported above; the results lack them", failures)
	}
	return measured, nil
}

// findServers finds the programs of the targets, and builds Surgetank, before the measurements.
func findServers(ctx context.Context, o *options, picked []target, dir string) (err error) {
	for _, t := range picked {
		switch {
		case t.name == classic || t.name == quorum:
			err = findRabbitMQ(o)
		case t.name == surgetank && o.surgetank == "":
			o.surgetank, err = build.Server(ctx, dir, "surgetank-server", "", nil)
		}
		if err != nil {
			return err
		}
	}
	o.surgetank, err = filepath.Abs(o.surgetank) // the server is started in a directory of its own
	return err
}

// measureOne runs a workload once on a new server.
func measureOne(ctx context.Context, o *options, w workload, t target, dir string) (r result, err error) {
	syscall.Sync() // unwritten data of the previous server must not slow this server down
	s, err := t.launch(ctx, o, dir)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, s.discard()) }()
	product := s.product()
	if r, err = w.measure(ctx, o, t, s); err != nil {
		return result{}, err
	}
	if pid := s.pid(); pid != 0 {
		s.memory(pid)
	}
	r.Workload, r.Target, r.Product, r.Client = w.name, t.name, product, clientVersion(o.lean)
	r.PeakMB = float64(s.peak.Load()) / 1e6
	return r, nil
}

// clientVersion returns the name of the client library and how it is used.
func clientVersion(lean bool) string {
	name := "amqp091-go"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if strings.HasSuffix(dep.Path, "/amqp091-go") {
				name += " " + dep.Version
			}
		}
	}
	if lean {
		name += ", writes gathered"
	}
	return name
}

// machine describes the computer.
func machine() string {
	kernel, memory := "", ""
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(text))
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err == nil {
		memory = fmt.Sprintf("%.0f GiB, ", float64(info.Totalram)*float64(info.Unit)/(1<<30))
	}
	return fmt.Sprintf("%d cores, %sLinux %s, %s", runtime.NumCPU(), memory, kernel, runtime.Version())
}
