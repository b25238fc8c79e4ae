// Package sqlite writes the messages of a queue into a table of a SQLite file.
//
// A SQLite file has one writer at a time, so all lanes share one connection, and only one lane at a
// time has a transaction. The file is in WAL mode with synchronous=FULL, so a committed batch is on
// disk. More than one lane helps only if turning messages into rows costs more than writing them.
package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/sink"
)

// Target is one table of one file. Make it with New.
type Target struct {
	spec   sink.Spec
	db     *db
	lanes  []*lane
	writer chan struct{} // contains a token while no lane has a transaction
}

// New makes a target for a spec of kind "sqlite" without opening it. It is a sink.Factory.
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

// Check opens the file, creates missing tables as configured, and compares the target table with
// the settings.
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
	if err := makeProgress(ctx, d); err != nil {
		return err
	}
	_, err = read(ctx, d, t.spec)
	return err
}

// Open opens the file and makes this opening the owner of the progress.
func (t *Target) Open(ctx context.Context, claim sink.Claim) (sink.State, []sink.Lane, error) {
	fresh := false
	if _, err := os.Stat(t.spec.Address); errors.Is(err, fs.ErrNotExist) {
		if !t.spec.Table.Create {
			return sink.State{}, nil, refused("sqlite.path", "the SQLite file %s is gone; put it back, or another one with the table", t.spec.Address)
		}
		// A new file lacks the rows of the old file. The claim knows whether the old file had rows.
		if _, err := claim.Next(nil); err != nil {
			return sink.State{}, nil, err
		}
		fresh = true
	}
	d, err := open(ctx, t.spec.Address, fresh)
	if err != nil {
		return sink.State{}, nil, err
	}
	t.db = d
	t.writer = make(chan struct{}, 1)
	t.writer <- struct{}{}
	if err := makeProgress(ctx, d); err != nil {
		return sink.State{}, nil, err
	}
	if t.spec.Table.Create {
		// A missing table is created only if the claim accepts the stored progress.
		old, err := stored(ctx, d, claim.Instance)
		if err == nil {
			_, err = claim.Next(old)
		}
		if err == nil {
			err = create(ctx, d, t.spec)
		}
		if err != nil {
			return sink.State{}, nil, err
		}
	}
	table, err := read(ctx, d, t.spec)
	if err != nil {
		return sink.State{}, nil, err
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
		l := newLane(t, table, claim, i)
		t.lanes = append(t.lanes, l)
		lanes[i] = l
	}
	return state, lanes, nil
}

// Close closes the file. No lane may be in use.
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
	batch INTEGER NOT NULL, watermark INTEGER NOT NULL, ids BLOB NOT NULL, updated TEXT NOT NULL, incarnation INTEGER NOT NULL DEFAULT 0,
	entry INTEGER NOT NULL DEFAULT 0, applied INTEGER NOT NULL DEFAULT 0, known BLOB NOT NULL DEFAULT x'', PRIMARY KEY (instance, lane)) WITHOUT ROWID`

// makeProgress makes sure that a progress table with all columns exists.
func makeProgress(ctx context.Context, d *db) error {
	if err := d.exec(ctx, createProgress); err != nil {
		return refused("sqlite.path", "the table surgetank_progress, where the sink keeps its progress, cannot be made: %v; the file must be writable", err)
	}
	if err := upgradeProgress(ctx, d); err != nil {
		return refused("sqlite.path", "the table surgetank_progress, where the sink keeps its progress, is of an older version and cannot be changed: %v; the file must be writable", err)
	}
	return nil
}

// upgradeProgress adds the columns that the progress table of an older version lacks.
func upgradeProgress(ctx context.Context, d *db) error {
	rows, err := d.query(ctx, "SELECT name FROM pragma_table_info('surgetank_progress')")
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, r := range rows {
		have[fmt.Sprint(r[0])] = true
	}
	for _, column := range []string{"incarnation INTEGER NOT NULL DEFAULT 0", "entry INTEGER NOT NULL DEFAULT 0",
		"applied INTEGER NOT NULL DEFAULT 0", "known BLOB NOT NULL DEFAULT x''"} {
		name, _, _ := strings.Cut(column, " ")
		if have[name] {
			continue
		}
		if err := d.exec(ctx, "ALTER TABLE surgetank_progress ADD COLUMN "+column); err != nil {
			return err
		}
	}
	return nil
}

// timeNow is SQL for the current time in the form of progressTime.
const timeNow = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

// stored reads an instance's progress. It returns nil if there is none.
func stored(ctx context.Context, d *db, instance string) (*sink.State, error) {
	rows, err := d.query(ctx, `SELECT lane, owner, queue, epoch, batch, watermark, ids, incarnation, entry, applied, known, updated
		FROM surgetank_progress WHERE instance = ? ORDER BY lane`, instance)
	if err != nil {
		return nil, classify(err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	number := func(v driver.Value) uint64 { n, _ := v.(int64); return uint64(n) }
	bytes := func(v driver.Value) []byte { b, _ := v.([]byte); return b }
	s := &sink.State{}
	for i, r := range rows {
		if i == 0 && r[0].(int64) != -1 {
			return nil, &sink.Error{Class: sink.Refused, Row: -1, Reason: "table surgetank_progress lacks the row of lane -1 of this sink; restore it, or delete the sink and set it again"}
		}
		text, _ := r[11].(string)
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.After(s.Updated) {
			s.Updated = at
		}
		if i > 0 {
			s.Incarnation = number(r[7])
			s.Lanes = append(s.Lanes, sink.LaneState{Batch: number(r[4]), Watermark: number(r[5]), Entry: number(r[8]), Applied: number(r[9]), IDs: bytes(r[6])})
			continue
		}
		s.Owner, _ = r[1].(string)
		s.Queue, s.Epoch, s.Settled = number(r[2]), number(r[3]), bytes(r[6])
		s.Before, s.Base, s.Known = sink.Position{Incarnation: number(r[7]), Entry: number(r[8])}, number(r[9]), bytes(r[10])
	}
	return s, nil
}

// takeOver replaces the stored progress by the claim's next progress, in one transaction. The row
// of lane -1 has the progress of the sink as a whole.
func takeOver(ctx context.Context, d *db, claim sink.Claim) (next sink.State, err error) {
	if err := d.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return next, classify(err)
	}
	defer func() {
		if err != nil {
			d.rollback()
		}
	}()
	old, err := stored(ctx, d, claim.Instance)
	if err != nil {
		return next, err
	}
	if next, err = claim.Next(old); err != nil {
		return next, err
	}
	if err := d.exec(ctx, "DELETE FROM surgetank_progress WHERE instance = ?", claim.Instance); err != nil {
		return next, classify(err)
	}
	for i := -1; i < len(next.Lanes); i++ {
		s, known, incarnation := sink.LaneState{Entry: next.Before.Entry, Applied: next.Base, IDs: next.Settled}, next.Known, next.Before.Incarnation
		if i >= 0 {
			s, known, incarnation = next.Lanes[i], []byte{}, next.Incarnation
		}
		err := d.exec(ctx, `INSERT INTO surgetank_progress (instance, lane, sink, owner, queue, epoch, batch, watermark, ids, incarnation, entry, applied, known, updated)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, `+timeNow+`)`, claim.Instance, int64(i), claim.Sink, next.Owner, int64(next.Queue), int64(next.Epoch),
			int64(s.Batch), int64(s.Watermark), s.IDs, int64(incarnation), int64(s.Entry), int64(s.Applied), known)
		if err != nil {
			return next, classify(err)
		}
	}
	if err := d.exec(ctx, "COMMIT"); err != nil {
		return next, classify(err)
	}
	return next, nil
}

// Forget removes an instance's progress when its sink is deleted.
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
