//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/internal/server/child"
)

// process is the server under test, over all its restarts. Clients ask it for addresses before
// every connection, and for its state to know whether a kill disturbed a measurement. start, kill
// and stop are for one goroutine.
type process struct {
	child *child.Server
	data  string
	log   *os.File

	mu         sync.RWMutex
	http, amqp string
	pid        int

	began   time.Time
	life    atomic.Int64 // number of the process; odd while it is up, even while it is down
	ready   atomic.Int64 // when this process became ready, in nanoseconds since began
	onDeath func(error)  // the process ended without being killed
	killing atomic.Bool
}

func newProcess(binary, dir string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{data: filepath.Join(dir, "data"), log: log, began: time.Now()}
	p.child = child.New(binary, p.data, log, append([]string{"--amqp", "127.0.0.1:0", "--log-level", "error"}, args...)...)
	return p, nil
}

// start starts the next process and returns when it is ready.
func (p *process) start(ctx context.Context) error {
	if err := p.child.Start(ctx); err != nil {
		return fmt.Errorf("starting the server: %w; its log is %s", err, p.log.Name())
	}
	p.mu.Lock()
	p.http, p.amqp, p.pid = p.child.Ready.HTTP, strings.TrimPrefix(p.child.Ready.AMQP, "amqp://"), p.child.Ready.PID
	p.mu.Unlock()
	p.killing.Store(false)
	p.ready.Store(int64(time.Since(p.began)))
	p.life.Add(1)
	exited := p.child.Exited()
	go func() {
		<-exited
		if !p.killing.Load() && p.onDeath != nil {
			p.onDeath(fmt.Errorf("the server ended by itself; its log is %s", p.log.Name()))
		}
	}()
	return nil
}

// kill ends the process without warning.
func (p *process) kill() {
	if p.life.Load()%2 == 1 {
		p.life.Add(1)
	}
	p.killing.Store(true)
	p.child.Kill()
}

// end stops the process in order, and closes its log.
func (p *process) end(ctx context.Context) error {
	p.killing.Store(true)
	err := p.child.Stop(ctx)
	return firstError(err, p.log.Close())
}

func (p *process) urls() (http, amqp string) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.http, p.amqp
}

// settled is how long after a start the server still counts as disturbed.
const settled = 2 * time.Second

// undisturbed returns a mark for a measurement that begins now. It returns false while the server
// is down or has just started.
func (p *process) undisturbed() (mark int64, ok bool) {
	life := p.life.Load()
	return life, life%2 == 1 && int64(time.Since(p.began))-p.ready.Load() > int64(settled)
}

// usage is a process's use of resources at one moment.
type usage struct {
	At         time.Duration // since the run began
	Age        time.Duration // of the process
	RSS, PSS   int64         // bytes
	Heap       int64         // bytes of Go objects that are live or not yet collected
	Live       int64         // bytes that were live at the last collection
	Goroutines int64
	Threads    int64
	FDs        int64
	Disk       int64 // bytes of blocks in the data directory
	Queues     int64
	CPU        float64 // seconds so far
}

// look reads /proc and, with scrape, the server's metrics. It returns an error if the process is
// down.
func (p *process) look(ctx context.Context, scrape bool) (usage, error) {
	p.mu.RLock()
	pid, base := p.pid, p.http
	p.mu.RUnlock()
	u := usage{At: time.Since(p.began)}
	u.Age = u.At - time.Duration(p.ready.Load())
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	u.RSS = field(status, "VmRSS:") << 10
	u.Threads = field(status, "Threads:")
	if rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
		u.PSS = field(rollup, "Pss:") << 10
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, err
	}
	u.FDs = int64(len(fds))
	u.Disk = diskUse(p.data)
	if !scrape {
		return u, nil
	}
	m, err := metricsOf(ctx, base)
	if err != nil {
		return u, err
	}
	u.Heap, u.Live = int64(m["go_memstats_heap_alloc_bytes"]), int64(m["go_gc_heap_live_bytes"])
	u.Goroutines, u.Queues, u.CPU = int64(m["go_goroutines"]), int64(m["surgetank_queues"]), m["process_cpu_seconds_total"]
	return u, nil
}

// field finds a number in a text like /proc/PID/status.
func field(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64) // the kernel writes only numbers here
			return n
		}
	}
	return 0
}

// diskUse adds up the blocks of all files in a directory. Files may appear and disappear meanwhile.
func diskUse(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !d.IsDir() {
			bytes += st.Blocks * 512
		}
		return nil
	})
	return bytes
}

var scraper = &http.Client{Timeout: 15 * time.Second}

// metricsOf reads the metrics that have no labels.
func metricsOf(ctx context.Context, base string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := scraper.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m := map[string]float64{}
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		name, value, ok := strings.Cut(in.Text(), " ")
		if !ok || strings.ContainsAny(name, "#{") {
			continue
		}
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			m[name] = f
		}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server's metrics: %s", resp.Status)
	}
	return m, in.Err()
}

// build makes the surgetank binary.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "surgetank")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/surgetank/surgetank/cmd/surgetank").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building surgetank: %w\n%s", err, out)
	}
	return binary, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// tail returns the last bytes of a file, for the report of a failure.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > n {
		_, _ = f.Seek(-n, io.SeekEnd) // otherwise from the beginning
	}
	b, _ := io.ReadAll(io.LimitReader(f, n)) // as much as can be read
	return string(b)
}
