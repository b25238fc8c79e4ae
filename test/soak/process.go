//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/proc"
	"github.com/surgetank/surgetank/test/kit/server"
)

// process is the server under test, over all its restarts. Clients ask it for addresses before
// every connection, and for its state, to know whether a kill disturbed a measurement.
type process struct {
	server.Server
	scraper *client.HTTP

	began   time.Time
	life    atomic.Int64 // number of starts and ends: odd while the server is up
	ready   atomic.Int64 // when this process became ready, in nanoseconds since began
	onDeath func(error)  // the process ended without being killed
}

func newProcess(binary, dir string, args ...string) *process {
	p := &process{began: time.Now()}
	p.Binary, p.Data, p.Log, p.Args = binary, filepath.Join(dir, "data"), filepath.Join(dir, "server.log"), append([]string{"--log-level", "error"}, args...)
	p.Watcher, p.scraper = p, client.NewHTTP(p.URL, 15*time.Second)
	return p
}

// start starts the next process and returns when it is ready.
func (p *process) start(ctx context.Context) error {
	p.Listen(p.HTTP(), server.AnyPort)
	if err := p.Start(ctx); err != nil {
		return fmt.Errorf("starting the server: %w; its log is %s", err, p.Log)
	}
	return nil
}

// Up counts a start of the server.
func (p *process) Up(time.Time) {
	p.ready.Store(int64(time.Since(p.began)))
	p.life.Add(1)
}

// Down reports an end that this program did not cause.
func (p *process) Down(killed time.Time, _ error) {
	if killed.IsZero() && p.onDeath != nil {
		p.onDeath(fmt.Errorf("the server ended by itself; its log is %s", p.Log))
	}
}

// kill ends the process without warning.
func (p *process) kill() {
	if p.life.Load()%2 == 1 {
		p.life.Add(1)
	}
	p.Kill()
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
	At         time.Duration // time since the run began
	Age        time.Duration // time since the process started
	RSS, PSS   int64         // bytes
	Heap       int64         // bytes of Go objects that are live or not yet collected
	Live       int64         // bytes that were live at the last collection
	Goroutines int64
	FDs        int64
	Disk       int64 // bytes of blocks in the data directory
	Queues     int64
}

// look reads /proc and the server's metrics. It returns an error if the process is down.
func (p *process) look(ctx context.Context) (usage, error) {
	u := usage{At: time.Since(p.began), RSS: p.RSS(), PSS: proc.PSS(p.PID()), FDs: int64(p.FDs()), Disk: proc.Disk(p.Data)}
	u.Age = u.At - time.Duration(p.ready.Load())
	if u.RSS == 0 {
		return u, errors.New("the server is down")
	}
	m, err := p.scraper.Metrics(ctx)
	if err != nil {
		return u, err
	}
	u.Heap, u.Live = int64(m["go_memstats_heap_alloc_bytes"]), int64(m["go_gc_heap_live_bytes"])
	u.Goroutines, u.Queues = int64(m["go_goroutines"]), int64(m["surgetank_queues"])
	return u, nil
}
