//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/surgetank/surgetank/test/targets/judge"
)

// world is one round: the servers, the database, and the published messages.
type world struct {
	*campaign
	ctx  context.Context
	plan *plan
	dir  string
	db   database
	log  []string // the actions and their times
	born time.Time

	nodes []*node

	// serverDisk and targetDisk are the small disks of the first server and the target, if there
	// are any.
	serverDisk, targetDisk string
	unmount                []func()
	// mend undoes, at the end of the round, the faults that actions left.
	mend []func() error

	causes   judge.Cause
	compared bool // the sinks have compared their numbers again after the last message
	notes    []string
	findings []judge.Finding // findings made during the round
	columns  []string        // columns of SQLite's table
	copies   int             // counter for new paths: see fresh

	mu       sync.Mutex // guards fields that publishers use, too
	messages map[int]*judge.Message
	bodies   map[int][]byte
	owner    map[int]*node
	next     int
	table    table           // what the table accepts now
	emptied  bool            // a user deleted rows, and recorded these rows in gone_t
	upto     int             // first message number without a partition
	done     map[string]bool // names of the migrations done
}

// database is the target with its ordinary faults. Each method returns when its fault is over.
type database interface {
	spec(w *world) map[string]any // the target's part of the sink's settings
	create(w *world) error        // creates the tables
	exec(sql string) error
	applied() ([]int, error)
	rows(w *world) ([]judge.Row, error)
	gone() ([]int, error) // the rows that the user deleted
	kill() error          // kills the database's processes; does nothing for SQLite
	start() error         // starts the database after kill or stop
	restart() error       // restarts the database in order
	save(to string, how string) (*savedTarget, error)
	restore(s *savedTarget) error
	close()
}

// savedTarget is an earlier moment of the target.
type savedTarget struct {
	how  string // dump, files, standby
	path string
	done map[string]bool
	upto int
}

func newWorld(ctx context.Context, c *campaign, p *plan, dir string) *world {
	return &world{campaign: c, ctx: ctx, plan: p, dir: dir, born: time.Now(), messages: map[int]*judge.Message{}, bodies: map[int][]byte{},
		owner: map[int]*node{}, done: map[string]bool{}, upto: 300, columns: liteColumns}
}

// fail records a broken promise that the judge cannot see later.
func (w *world) fail(kind, format string, args ...any) {
	w.findings = append(w.findings, judge.Finding{Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%5.2fs %s", time.Since(w.born).Seconds(), fmt.Sprintf(format, args...)))
}

// first returns the server that exists in every round.
func (w *world) first() *node { return w.nodes[0] }

// build starts everything: the database, the first server with its sink, and the publisher.
func (w *world) build() (err error) {
	data := filepath.Join(w.dir, "data")
	parent := w.dir
	if w.plan.disks() {
		w.serverDisk, w.targetDisk = filepath.Join(w.dir, "disk-server"), filepath.Join(w.dir, "disk-target")
		for disk, mib := range map[string]int{w.serverDisk: 224, w.targetDisk: 224} {
			unmount, err := smallDisk(disk, mib)
			if err != nil {
				return err
			}
			w.unmount = append(w.unmount, unmount)
		}
		data, parent = filepath.Join(w.serverDisk, "data"), w.targetDisk
	}
	if w.plan.kind == "postgres" {
		w.db, err = w.newPostgres(parent)
	} else {
		w.db, err = w.newSQLite(parent)
	}
	if err != nil {
		return err
	}
	if err := w.db.create(w); err != nil {
		return err
	}
	n := w.newNode("a", data)
	if err := n.start(); err != nil {
		return err
	}
	if err := n.setUp(); err != nil {
		return err
	}
	n.pub = newPublisher(n)
	return nil
}

// close ends everything, even after a failed build.
func (w *world) close() {
	for _, n := range w.nodes {
		if n.pub != nil {
			n.pub.cancel()
		}
		n.Kill()
	}
	if w.db != nil {
		w.db.close()
	}
	for _, f := range w.unmount {
		f()
	}
}

// spec returns the sink's settings.
func (w *world) spec() []byte {
	target := w.db.spec(w)
	target["table"] = "rows_t"
	columns := map[string]string{"g": "message.group"}
	for _, c := range []string{"n", "k", "v", "s", "i", "j", "d", "u"} {
		columns[c] = "$." + c
	}
	target["columns"] = columns
	switch w.plan.mode {
	case judge.Nothing:
		target["on_conflict"] = map[string]any{"keys": []string{"n"}, "do": "nothing"}
	case judge.Update:
		target["on_conflict"] = map[string]any{"keys": []string{"k"}, "do": "update"}
	}
	b, err := json.Marshal(map[string]any{"queue": "q", w.plan.kind: target, "lanes": w.plan.lanesOf(),
		"batch": map[string]any{"max": w.plan.batch, "wait": w.plan.wait}})
	if err != nil {
		panic(err) // maps of strings and numbers always marshal
	}
	return b
}

// lanesOf returns the numbers of lanes that the target allows.
func (p *plan) lanesOf() int {
	if p.kind == "sqlite" {
		return 1
	}
	return p.lanes
}

// advance waits until the first server has confirmed n more messages.
func (w *world) advance(n int) { w.first().pub.advance(n, 2*time.Second) }

// drained waits until the queues are empty or sinks have stopped. It returns an error if neither
// happens in time.
func (w *world) drained(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(w.ctx, limit)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		over, words := true, ""
		for _, n := range w.nodes {
			left, err := n.backlog()
			if err == nil && left == 0 {
				continue
			}
			s, serr := n.sink()
			if err == nil && serr == nil && stopped(s.State) {
				continue
			}
			over = false
			words += fmt.Sprintf("%s: %d waiting, sink %s %s %v; ", n.name, left, s.State, s.Reason, errors.Join(err, serr))
		}
		if over {
			return nil
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return errors.New(words)
		}
	}
}

func stopped(state string) bool { return state == "refused" || state == "fenced" }

// holds records which messages a server must have after a publish request.
func (w *world) holds(n *node, list []*judge.Message, answered bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range list {
		n.holds[m.N] = judge.Maybe
		if answered {
			n.holds[m.N] = judge.Sure
		}
	}
}

func (w *world) body(n int) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bodies[n]
}

// fresh returns an unused path in the round's directory.
func (w *world) fresh(name string) string {
	w.copies++
	return filepath.Join(w.dir, fmt.Sprintf("%s-%d", name, w.copies))
}

// copyLive copies a directory whose files may change, appear and disappear meanwhile. The directory
// to must not exist.
func copyLive(from, to string) error {
	out, err := exec.Command("cp", "-a", from, to).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "No such file") && !strings.Contains(line, "file changed") {
			return fmt.Errorf("copying %s: %w %s", from, err, out)
		}
	}
	return nil
}
