package main

import (
	"fmt"
	"io"

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
	From      string         `json:"from"`
	To        string         `json:"to"`
	Entries   int            `json:"entries"`
	Snapshots int            `json:"snapshots"`
	Lost      [][2]uint64    `json:"lost"`      // first and last offset of each run of lost entries
	LostTail  bool           `json:"lost_tail"` // the last run of lost entries has an unknown length
	Queues    []lossShape    `json:"queues"`
	Notes     []string       `json:"notes"` // the report in sentences
	Problems  []problemShape `json:"problems"`
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

// Run copies the undamaged data into a new directory, makes the directory ready for a server, and
// reports the losses.
func (c *repairCmd) Run(s *session) error {
	if err := private(c.To); err != nil {
		return err
	}
	fs, to := vfs.OS{}, dataFlag{c.To}.log()
	r, err := disklog.Repair(fs, c.log(), to)
	if err != nil {
		return err
	}
	snapshots, err := disklog.OpenSnapshots(fs, to)
	if err != nil {
		return err
	}
	loss, err := broker.Repair(broker.RepairOptions{Snapshots: snapshots, Trimmed: r.Trimmed, Tail: r.Tail,
		OpenLog: func() (commitlog.Replay, commitlog.Log, error) {
			return disklog.OpenStepped(disklog.Options{FS: fs, Dir: to, CacheBytes: -1, MinFree: -1})
		}})
	if err != nil {
		return fmt.Errorf("%w; %s holds the whole entries and cannot be served", err, c.To)
	}
	return c.print(s.stdout, c.shape(r, loss), func(w io.Writer) error {
		for _, p := range r.Problems {
			fmt.Fprintf(w, "damage: %s\n", p)
		}
		for _, line := range loss.Lines() {
			fmt.Fprintln(w, printable(line))
		}
		if loss.Whole() {
			fmt.Fprintln(w, "nothing that was confirmed is lost")
		}
		_, err := fmt.Fprintf(w, "saved %s and %s to %s; start with surgetank serve --data %s\n", plural(r.Entries, "entry"), plural(r.Snapshots, "snapshot"), c.To, c.To)
		return err
	})
}

func (c *repairCmd) shape(r *disklog.RepairReport, loss *queue.RepairReport) repairShape {
	shape := repairShape{From: c.Data, To: c.To, Entries: r.Entries, Snapshots: r.Snapshots, Lost: [][2]uint64{}, LostTail: r.Tail,
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
