// Command bench measures an embedded Surgetank. In the same run it measures the bound that the disk
// and the program itself set. It writes the figures to a dated file. Absolute figures depend on the
// machine and the time; ratios within a run are comparable.
//
//	go run ./bench                       every workload
//	go run ./bench -only publish,latency some of them
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

var (
	flagDir  = flag.String("dir", "", "where the data goes; put it on the disk to be measured (default: the temporary directory)")
	flagOut  = flag.String("out", "bench/results", "folder for the dated results")
	flagCase = flag.String("case", "", "of publish: only this, as PUBLISHERSxWINDOW")
	flagOnly = flag.String("only", "", "workloads, separated by commas: publish, latency, e2e, contend, backlog, sink")
	flagSecs = flag.Duration("secs", 5*time.Second, "how long each measurement takes")
	flagRuns = flag.Int("runs", 3, "runs of each measurement; the median is reported")
	flagMill = flag.String("millions", "1,10", "backlog sizes in millions of messages")
	flagPG   = flag.String("postgres", "", "DSN of a PostgreSQL for the sink workload; without it the sink workload starts its own")
	flagProf = flag.String("cpuprofile", "", "write a CPU profile there")
	flagRows = flag.Int("rows", 400_000, "rows of the sink workload")
)

// row is one line of the report.
type row struct{ what, value, bound, ratio string }

// report collects rows and prints each at once.
type report struct {
	section string
	lines   []string
}

func (r *report) head(section, note string) {
	r.lines = append(r.lines, "", "## "+section, "", note, "", "| what | measured | bound | ratio |", "|---|---|---|---|")
	fmt.Printf("\n%s: %s\n", section, note)
}

func (r *report) row(x row) {
	line := fmt.Sprintf("| %s | %s | %s | %s |", x.what, x.value, x.bound, x.ratio)
	r.lines = append(r.lines, line)
	fmt.Println(line)
}

func main() {
	debug.SetGCPercent(50) // as `surgetank serve` does
	if len(os.Args) > 1 && os.Args[1] == "start-child" {
		startChild(os.Args[2])
		return
	}
	flag.Parse()
	if *flagProf != "" {
		f, err := os.Create(*flagProf)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp(*flagDir, "surgetank-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var r report
	all := []struct {
		name string
		run  func(*report, string) error
	}{{"publish", benchPublish}, {"latency", benchLatency}, {"e2e", benchE2E}, {"contend", benchContend}, {"backlog", benchBacklog}, {"sink", benchSink}}
	only := strings.Split(*flagOnly, ",")
	for _, w := range all {
		if *flagOnly != "" && !slices.Contains(only, w.name) {
			continue
		}
		sub := filepath.Join(dir, w.name)
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		if err := w.run(&r, sub); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if err := os.RemoveAll(sub); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(*flagOut, 0o755); err != nil {
		return err
	}
	name := time.Now().UTC().Format("2006-01-02")
	if *flagOnly != "" {
		name += "-" + strings.ReplaceAll(*flagOnly, ",", "-")
	}
	head := fmt.Sprintf("# Surgetank embedded, %s\n\n%s, %d cores, %s. Medians of %d runs of %v each. Bound and measurement alternate in one run.\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.Version(), runtime.NumCPU(), runtime.GOOS, *flagRuns, *flagSecs)
	path := filepath.Join(*flagOut, name+".md")
	fmt.Println("\nwritten to", path)
	return os.WriteFile(path, []byte(head+strings.Join(r.lines, "\n")+"\n"), 0o644)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/1e6) }

func rate(v float64) string { return fmt.Sprintf("%.0f/s", v) }
