package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
)

// Target is one table of one database that a sink writes to. The runner calls Check, Open and Close
// from one goroutine at a time. It never has two openings of one target at once.
type Target interface {
	// Check checks the live target when a sink is created or changed. The target must be reachable
	// and the table must have every named column. The columns must accept the values, and
	// on_conflict needs a unique index. If create_table is set, Check creates the table. The error
	// is a *surgetank.Error that names what is missing.
	Check(ctx context.Context) error
	// Open connects, reads the stored progress, passes it to claim.Next, and stores the result, all
	// in one transaction that locks the progress. It returns one Lane for each of claim.Lanes.
	// After Open no commit of an earlier opening can succeed. Open tries once; the runner waits and
	// retries.
	Open(ctx context.Context, claim Claim) (State, []Lane, error)
	// Close closes all lanes and connections, also after a failed Open. It does not wait for the
	// database.
	Close()
}

// Lane writes batches. One goroutine uses it. A batch is: Reset, Add for each message, then either
// Commit, or Begin, some Writes, and Finish or Rollback.
//
// A lane connects when a call needs a connection; Rest closes the connection. Before a new
// connection writes anything, the lane reads the stored progress of the whole sink and passes it to
// Claim.Verify.
//
// Every method with a context returns an *Error, whose Class decides what the runner does. Any
// other error counts as Down.
type Lane interface {
	// Reset removes the added rows.
	Reset()
	// Add turns a message into a row and keeps the row. An *Error of class BadRow says that the
	// message can never become a row of the table as the lane knows it. Reasons are a body that is
	// not JSON, a missing field, or a value that does not fit the column's type.
	Add(d *surgetank.Delivery) error
	// Commit writes all added rows and the progress in one transaction, all or nothing. After an
	// error of class BadRow, Suspect, TableFault, Retry, TooLarge or Changed nothing was written
	// and the lane can be used again.
	Commit(ctx context.Context, p Progress) error
	// Begin starts a transaction for Write and Finish. It returns class Changed if the table has
	// changed since Add.
	Begin(ctx context.Context) error
	// Write writes the added rows [from, to). After an error of class BadRow, Suspect or TableFault
	// none of these rows is written, and Row may name the row at fault. Rows written before stay
	// written, unless the error says Lost. After any other error the transaction is lost.
	Write(ctx context.Context, from, to int) error
	// Finish stores the progress and commits.
	Finish(ctx context.Context, p Progress) error
	// Rollback ends the transaction of Begin without effect. If it returns nil, the lane can be
	// used again.
	Rollback(ctx context.Context) error
	// Fresh makes sure that the lane knows the current table. The runner calls it before it parks
	// messages that Add called bad. If changed is true, the runner adds these messages again. The
	// runner also calls Fresh once a minute while there is nothing to write. A target without
	// separate connections for lanes lets Claim.Verify check the stored progress in this call.
	Fresh(ctx context.Context) (changed bool, err error)
	// Rest closes the lane's connection. The runner calls it between batches, after the lane was
	// idle for a while. The next call that needs a connection opens one.
	Rest()
}

// Progress is what a batch's transaction stores with its rows. The transaction must commit only if
// the lane's row still has Claim.Owner, this epoch and this batch number. Otherwise the whole
// transaction must fail with class Stale. The owner is needed because epochs and batch numbers
// repeat: a copy of the data directory may run, or the target may go back in time.
type Progress struct {
	Epoch     uint64
	Batch     uint64 // number of the last committed batch; this commit stores Batch+1
	Watermark uint64
	Entry     uint64 // of the queue's log; the watermark depends on it
	Applied   uint64 // messages of this lane in this epoch, including this batch
	IDs       []byte // see appendIDs
	// Settled replaces State.Settled in the row of lane -1, if it is not nil. The lane must change
	// that row before its own, because Open locks the rows in this order.
	Settled []byte
}

// Class says what an error of a target means. The runner decides by the class what to do with the
// batch.
type Class uint8

const (
	// Down: the target cannot be reached or used, or the outcome is unknown. Every lane stops, and
	// the messages go back to the queue without counting an attempt. The sink then opens the target
	// again and reads what was committed. Down is the safe class for every unknown error.
	Down Class = iota
	// Retry: the database rolled back the transaction for an outside reason, such as a deadlock.
	// The same batch is tried again after a pause.
	Retry
	// TooLarge: the batch exceeded a limit, such as time, memory or parameters. It is retried in
	// smaller parts.
	TooLarge
	// BadRow: the row is at fault, beyond doubt. The batch is split until the row is found. The row
	// is parked, and the rest is committed.
	BadRow
	// Suspect: either one row or the whole table is at fault, and the error alone does not say
	// which. Examples are a permission or an error inside a trigger. The row is at fault if other
	// rows commit and this one fails alone again.
	Suspect
	// Reference: the row refers to another row that does not exist, or not yet (a foreign key). It
	// is retried before it is parked.
	Reference
	// TableFault: the table cannot accept this row, and a user must change the table. Examples are
	// a missing partition, or a column that the sink does not fill and that allows no null. No
	// message is parked for this error.
	TableFault
	// Changed: the table has changed since the rows were added. Nothing was written. The lane knows
	// the current table now; all rows must be added again.
	Changed
	// Stale: the lane's progress differs from what this sink left. A newer opening took over, or an
	// earlier commit of unknown outcome succeeded. The next opening finds out which.
	Stale
	// Fenced: another process runs this sink now. This sink stops until a user resumes it.
	Fenced
	// Refused: the stored progress and the broker contradict each other. The sink stops and reports
	// the contradiction.
	Refused
)

var classNames = [...]string{"down", "retry", "too large", "bad row", "suspect", "reference", "table fault", "changed", "stale", "fenced", "refused"}

// OfRow reports whether one row may have caused an error of this class. If so, the batch is split
// to find the row.
func (c Class) OfRow() bool {
	return c == BadRow || c == Suspect || c == Reference || c == TableFault
}

// String names the class for logs.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "?"
}

// Error is an error of a target.
type Error struct {
	Class  Class
	Row    int    // from Commit and Write, for a class OfRow: index of the row at fault in order of Add, from 0; -1: not known
	Reason string // for people: the database's own words, with SQLSTATE and constraint if it reported them
	Err    error
	// Busy: the target asks for less load. RetryAfter is the pause that the target asked for; 0: none.
	Busy       bool
	RetryAfter time.Duration
	Lost       bool // from Write, for a class OfRow: the error ended the transaction, so earlier writes are lost too
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// BadRowf makes an error for Lane.Add.
func BadRowf(format string, args ...any) *Error {
	return &Error{Class: BadRow, Row: -1, Reason: fmt.Sprintf(format, args...)}
}

// MissingField is the error for a message that lacks a field that a column needs.
func MissingField(c Column) *Error {
	return BadRowf("column %q: %s is missing in the message, and the column allows no null and has no default", c.Name, c.From)
}

// asError converts any error of a target to an *Error with a class. It returns nil for nil.
func asError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
}
