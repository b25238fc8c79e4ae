package sinktest

import (
	"github.com/surgetank/surgetank/sink"
)

// The value of v in a row decides whether and how the in-memory table rejects the row:
const (
	VPlain    = 0     // up to 999: written; a negative v is bad beyond doubt
	VSuspect  = 1_000 // up to 1,999: rejected; the error does not show whether the row or the table is at fault
	VNeedsFix = 2_000 // up to 2,999: rejected as the table's fault until Repair
	VParent   = 3_000 // up to 3,999: written
	VChild    = 4_000 // up to 4,999: needs the parent row with the same last digits
	VEnds     = 5_000 // up to 5,999: bad, and the error ends the transaction
	VLate     = 6_000 // up to 6,999: rejected by the commit; the error does not name the row
	VHuge     = 7_000 // up to 7,999: never fits, even alone
	VStep     = 1_000
)

// rules is the current behaviour of the table. Memory's mu guards it.
type rules struct {
	wide    bool // the column accepts text that begins with w
	mended  bool
	revoked bool // every row is rejected; the error does not show whether the row or the table is at fault
	room    int  // the largest number of rows in one transaction; 0: no limit
	rests   int  // number of calls of Lane.Rest
}

// Widen changes the table: v also accepts text that begins with w.
func (m *Memory) Widen() { m.change(func() { m.wide = true }) }

// Repair makes the table accept rows of VNeedsFix.
func (m *Memory) Repair() { m.change(func() { m.mended = true }) }

// Revoke revokes or restores the permission to write.
func (m *Memory) Revoke(revoked bool) { m.change(func() { m.revoked = revoked }) }

// Room limits the rows of one transaction; 0: no limit.
func (m *Memory) Room(rows int) { m.change(func() { m.room = rows }) }

// Rests returns the number of calls of Lane.Rest.
func (m *Memory) Rests() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rests
}

func (m *Memory) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// rejects returns the error for the row r, or nil. tx has the rows that the transaction has already
// written, and rows the rows that are written together with r. Call with mu held.
func (m *Memory) rejects(r Row, tx, rows []Row) *sink.Error {
	switch {
	case m.room > 0 && len(tx) > m.room:
		return &sink.Error{Class: sink.TooLarge, Reason: "the transaction is too large"}
	case m.revoked:
		return &sink.Error{Class: sink.Suspect, Reason: "permission denied"}
	case r.V < 0:
		return &sink.Error{Class: sink.BadRow, Reason: "v must not be negative"}
	}
	switch r.V / VStep * VStep {
	case VSuspect:
		return &sink.Error{Class: sink.Suspect, Reason: "a trigger said no"}
	case VNeedsFix:
		if !m.mended {
			return &sink.Error{Class: sink.TableFault, Reason: "there is no partition for the row"}
		}
	case VChild:
		parent := r.V - VChild + VParent
		for _, list := range [][]Row{m.rows, tx} {
			for _, other := range list {
				if other.V == parent {
					return nil
				}
			}
		}
		return &sink.Error{Class: sink.Reference, Reason: "the parent is not there"}
	case VEnds:
		return &sink.Error{Class: sink.BadRow, Reason: "the transaction was rolled back by a trigger", Lost: true}
	case VHuge:
		return &sink.Error{Class: sink.TooLarge, Reason: "the row takes too long"}
	}
	return nil
}

// late returns the error of a check at the commit. Call with mu held.
func (m *Memory) late(rows []Row) error {
	for _, r := range rows {
		if r.V/VStep*VStep == VLate {
			return &sink.Error{Class: sink.BadRow, Row: -1, Reason: "a deferred check failed"}
		}
	}
	return nil
}
