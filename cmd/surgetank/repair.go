package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/seqset"
	"github.com/surgetank/surgetank/internal/vfs"
)

type repairCmd struct {
	dataFlag
	To string `arg:"" placeholder:"DIR" help:"New data directory for the undamaged data. The damaged one is not changed."`
	output
}

// repairShape is the JSON output of repair.
type repairShape struct {
	Shard     int            `json:"shard,omitempty"` // 0: there is one shard
	From      string         `json:"from"`
	To        string         `json:"to"`
	Entries   int            `json:"entries"`
	Snapshots int            `json:"snapshots"`
	Lost      [][2]uint64    `json:"lost"`      // first and last offset of each run of lost entries
	LostTail  bool           `json:"lost_tail"` // the last run of lost entries has an unknown length
	Queues    []lossShape    `json:"queues"`
	Notes     []string       `json:"notes"` // the report in sentences
	Problems  []problemShape `json:"problems"`
	Shards    []repairShape  `json:"shards,omitempty"` // each shard, if there are several; the other fields are then about all
}

// lossShape describes the losses of one queue. Runs contain the numbers of message ids.
type lossShape struct {
	ID        uint64      `json:"id"`
	Name      string      `json:"name"`
	MadeUp    bool        `json:"made_up,omitempty"`
	Missing   [][2]uint64 `json:"missing"`
	Bodies    [][2]uint64 `json:"bodies"`
	Skipped   uint64      `json:"skipped_from,omitempty"`
	Histories int         `json:"histories,omitempty"`
}

// Run copies the undamaged data of all shards into a new directory, makes the directory ready for a
// server, and reports the losses. The further shards are in DIR/shard-2 and so on.
func (c *repairCmd) Run(s *session) error {
	list, err := c.shards()
	if err != nil {
		return err
	}
	var all repairShape
	var lines []string
	whole, entries, snapshots := true, 0, 0
	for _, d := range list {
		to := shardData{d.shard, c.To}
		if d.shard > 1 {
			to.dir = filepath.Join(c.To, fmt.Sprintf("shard-%d", d.shard))
		}
		r, loss, err := d.repair(to)
		if err != nil {
			return d.named(err)
		}
		for _, p := range r.Problems {
			lines = append(lines, fmt.Sprintf("%sdamage: %s", d.prefix(), p))
		}
		for _, line := range loss.Lines() {
			lines = append(lines, d.prefix()+printable(line))
		}
		whole, entries, snapshots = whole && loss.Whole(), entries+r.Entries, snapshots+r.Snapshots
		shape := d.shape(to, r, loss)
		if len(list) == 1 {
			all = shape
			break
		}
		all.From, all.To, all.Entries, all.Snapshots, all.LostTail = c.Data, c.To, entries, snapshots, all.LostTail || shape.LostTail
		all.Lost, all.Queues = append(all.Lost, shape.Lost...), append(all.Queues, shape.Queues...)
		all.Problems, all.Shards = append(all.Problems, shape.Problems...), append(all.Shards, shape)
		for _, line := range shape.Notes {
			all.Notes = append(all.Notes, d.prefix()+line)
		}
	}
	return c.print(s.stdout, all, func(w io.Writer) error {
		for _, line := range lines {
			fmt.Fprintln(w, line)
		}
		if whole {
			fmt.Fprintln(w, "nothing that was confirmed is lost")
		}
		start := "surgetank serve --data " + c.To
		if len(list) > 1 {
			start += fmt.Sprintf(" --shards %d", len(list))
		}
		_, err := fmt.Fprintf(w, "saved %s and %s to %s; start with %s\n", plural(entries, "entry"), plural(snapshots, "snapshot"), c.To, start)
		return err
	})
}

// repair copies one shard.
func (d shardData) repair(to shardData) (*disklog.RepairReport, *queue.RepairReport, error) {
	if err := private(to.dir); err != nil {
		return nil, nil, err
	}
	fs := vfs.OS{}
	r, err := disklog.Repair(fs, d.log(), to.log())
	if err != nil {
		return nil, nil, err
	}
	snapshots, err := disklog.OpenSnapshots(fs, to.log())
	if err != nil {
		return nil, nil, err
	}
	loss, err := broker.Repair(broker.RepairOptions{Snapshots: snapshots, Trimmed: r.Trimmed, Tail: r.Tail,
		OpenLog: func() (commitlog.Replay, commitlog.Log, error) {
			return disklog.OpenStepped(disklog.Options{FS: fs, Dir: to.log(), CacheBytes: -1, MinFree: -1})
		}})
	if err != nil {
		return nil, nil, fmt.Errorf("%w; %s holds the whole entries and cannot be served", err, to.dir)
	}
	return r, loss, nil
}

func (d shardData) shape(to shardData, r *disklog.RepairReport, loss *queue.RepairReport) repairShape {
	shape := repairShape{Shard: d.shard, From: d.dir, To: to.dir, Entries: r.Entries, Snapshots: r.Snapshots, Lost: [][2]uint64{}, LostTail: r.Tail,
		Queues: []lossShape{}, Notes: loss.Lines(), Problems: shapeProblems(r.Problems)}
	for _, l := range r.Lost {
		shape.Lost = append(shape.Lost, [2]uint64{uint64(l.First), uint64(l.Last)})
	}
	runs := func(list []seqset.Run) [][2]uint64 {
		out := [][2]uint64{}
		for _, x := range list {
			out = append(out, [2]uint64{x.First, x.Last})
		}
		return out
	}
	for _, q := range loss.Queues {
		shape.Queues = append(shape.Queues, lossShape{ID: q.ID, Name: q.Name, MadeUp: q.MadeUp, Missing: runs(q.Missing), Bodies: runs(q.Bodies),
			Skipped: q.Skipped, Histories: q.Histories})
	}
	return shape
}
