// Package sqlite writes the messages of a queue into a table of a SQLite file.
//
// A SQLite file has one writer at a time, so all lanes share one connection and take turns with whole transactions. The
// file is in WAL mode with synchronous=FULL: a committed batch is on disk. More than one lane helps only when
// turning messages into rows costs more than writing them.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// Target is one table of one file. Make it with New.
type Target struct {
	spec   sink.Spec
	db     *db
	lanes  []*lane
	writer chan struct{} // holds a token while no lane has a transaction
}

// New makes a target for a spec of kind "sqlite"; nothing is opened yet. It is a sink.Factory.
func New(spec sink.Spec) (sink.Target, error) {
	if spec.Kind != "sqlite" {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "the sqlite target was given settings for %s", spec.Kind)
	}
	if spec.Address == ":memory:" {
		return nil, surgetank.FieldErrorf("sqlite.path", "sqlite.path must be a file; :memory: would forget every row")
	}
	parts, err := sink.SplitTable(spec.Table.Table)
	if err != nil || len(parts) != 1 {
		return nil, surgetank.FieldErrorf("sqlite.table", "sqlite.table must be a table of the file, without a schema, not %.80q", spec.Table.Table)
	}
	return &Target{spec: spec}, nil
}

// Check opens the file, makes the tables that are to be made, and compares the target table with the settings.
func (t *Target) Check(ctx context.Context) error {
	d, err := open(ctx, t.spec.Address, t.spec.Table.Create)
	if err != nil {
		return err
	}
	defer d.close()
	if t.spec.Table.Create {
		if err := create(ctx, d, t.spec); err != nil {
			return err
		}
	}
	if err := d.exec(ctx, createProgress); err != nil {
		return refused("sqlite.path", "the table surgetank_progress, where the sink keeps its progress, cannot be made: %v; the file must be writable", err)
	}
	_, err = read(ctx, d, t.spec)
	return err
}

// Open opens the file and takes the progress over. It makes nothing: a file or a table that is gone was there when the sink was set, and
// what it held is missing.
func (t *Target) Open(ctx context.Context, claim sink.Claim) (sink.State, []sink.Lane, error) {
	if _, err := os.Stat(t.spec.Address); errors.Is(err, fs.ErrNotExist) {
		return sink.State{}, nil, refused("sqlite.path", "the SQLite file %s is gone: it was there when the sink was set, and a new one would lack the rows whose messages are settled; put it back, or delete the sink and set it again to start over",
			t.spec.Address)
	}
	d, err := open(ctx, t.spec.Address, false)
	if err != nil {
		return sink.State{}, nil, err
	}
	t.db = d
	t.writer = make(chan struct{}, 1)
	t.writer <- struct{}{}
	table, err := read(ctx, d, t.spec)
	if err != nil {
		return sink.State{}, nil, err
	}
	if there, err := d.query(ctx, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'surgetank_progress'"); err != nil {
		return sink.State{}, nil, classify(err)
	} else if len(there) == 0 {
		return sink.State{}, nil, refused("sqlite.path", "the table surgetank_progress is gone from %s: without it nobody can tell which messages are in the table; restore it, or delete the sink and set it again to start over",
			t.spec.Address)
	}
	state, err := takeOver(ctx, d, claim)
	if err != nil {
		return sink.State{}, nil, err
	}
	if err := d.same(); err != nil {
		return sink.State{}, nil, err
	}
	lanes := make([]sink.Lane, claim.Lanes)
	for i := range lanes {
		l := newLane(t, table, claim.Instance, i)
		t.lanes = append(t.lanes, l)
		lanes[i] = l
	}
	return state, lanes, nil
}

// Close closes the file. No lane may be at work.
func (t *Target) Close() {
	for _, l := range t.lanes {
		l.close()
	}
	t.lanes = nil
	if t.db != nil {
		t.db.close()
		t.db = nil
	}
}

const createProgress = `CREATE TABLE IF NOT EXISTS surgetank_progress (
	instance TEXT NOT NULL, lane INTEGER NOT NULL, sink TEXT NOT NULL, owner TEXT NOT NULL, queue INTEGER NOT NULL, epoch INTEGER NOT NULL,
	batch INTEGER NOT NULL, watermark INTEGER NOT NULL, ids BLOB NOT NULL, updated TEXT NOT NULL, PRIMARY KEY (instance, lane)) WITHOUT ROWID`

// takeOver reads the stored progress and replaces it by what the claim makes of it, in one transaction. The row of lane -1 holds what
// belongs to the sink as a whole.
func takeOver(ctx context.Context, d *db, claim sink.Claim) (next sink.State, err error) {
	if err := d.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return next, classify(err)
	}
	defer func() {
		if err != nil {
			d.rollback()
		}
	}()
	rows, err := d.query(ctx, "SELECT lane, owner, queue, epoch, batch, watermark, ids FROM surgetank_progress WHERE instance = ? ORDER BY lane", claim.Instance)
	if err != nil {
		return next, classify(err)
	}
	var old *sink.State
	for _, r := range rows {
		if r[0].(int64) < 0 {
			old = &sink.State{Owner: r[1].(string), Queue: uint64(r[2].(int64)), Epoch: uint64(r[3].(int64))}
			continue
		}
		if old == nil {
			return next, &sink.Error{Class: sink.Refused, Row: -1, Reason: fmt.Sprintf("table surgetank_progress lacks the row of lane -1 of sink %q; restore it, or delete the sink and set it again", claim.Sink)}
		}
		old.Lanes = append(old.Lanes, sink.LaneState{Batch: uint64(r[4].(int64)), Watermark: uint64(r[5].(int64)), IDs: r[6].([]byte)})
	}
	if next, err = claim.Next(old); err != nil {
		return next, err
	}
	if err := d.exec(ctx, "DELETE FROM surgetank_progress WHERE instance = ?", claim.Instance); err != nil {
		return next, classify(err)
	}
	put := func(lane int, s sink.LaneState) error {
		return d.exec(ctx, "INSERT INTO surgetank_progress VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))", claim.Instance, int64(lane), claim.Sink,
			next.Owner, int64(next.Queue), int64(next.Epoch), int64(s.Batch), int64(s.Watermark), s.IDs)
	}
	if err := put(-1, sink.LaneState{IDs: sink.AppendIDs(nil, nil)}); err != nil {
		return next, classify(err)
	}
	for i, s := range next.Lanes {
		if err := put(i, s); err != nil {
			return next, classify(err)
		}
	}
	if err := d.exec(ctx, "COMMIT"); err != nil {
		return next, classify(err)
	}
	return next, nil
}

// Forget removes an instance's progress, when its sink is deleted.
func (t *Target) Forget(ctx context.Context, instance string) error {
	d, err := open(ctx, t.spec.Address, false)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.exec(ctx, "DELETE FROM surgetank_progress WHERE instance = ?", instance); err != nil {
		return classify(err)
	}
	return nil
}
