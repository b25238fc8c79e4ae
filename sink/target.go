package sink

import (
	"context"
	"errors"
	"fmt"

	"github.com/surgetank/surgetank"
)

// Target is one place that a sink writes to: a table of one database. The runner calls Check, Open
// and Close from one goroutine at a time; it never has two opens of one target alive.
type Target interface {
	// Check looks at the live target when a sink is set: can it be reached, is the table there with
	// every column named, can the values go in, is there a unique index for on_conflict? It makes
	// the table where create_table asks for it. The error is a *surgetank.Error that says exactly
	// what is missing.
	Check(ctx context.Context) error
	// Open connects, reads the stored progress, hands it to claim.Next, stores what that gives (all
	// of it in one transaction that locks the progress), and returns one Lane for each of
	// claim.Lanes. From then on no commit of an earlier opening can succeed. It tries once; the
	// runner waits and tries again.
	Open(ctx context.Context, claim Claim) (State, []Lane, error)
	// Close releases all lanes and connections, also after a failed Open. It does not wait for the
	// database.
	Close()
}

// Lane writes batches. It is used by one goroutine. A batch is: Reset, Add for each message, then
// either Commit, or Begin, some Writes, and Finish or Rollback.
//
// A lane connects when a call needs a connection, and Rest gives the connection back. Before a new
// connection writes anything, the lane reads the stored progress of the whole sink and passes it to
// Claim.Verify.
//
// Every method with a context returns an *Error, whose Class decides what the runner does; any
// other error counts as Down.
type Lane interface {
	// Reset forgets the rows added.
	Reset()
	// Add turns a message into a row and keeps it. An *Error of class BadRow says that this message
	// can never become a row of the table as the lane knows it: its body is not JSON, a field is
	// missing, a value does not fit the column's type.
	Add(d *surgetank.Delivery) error
	// Commit writes all rows added and the progress in one transaction: all of it, or nothing.
	// After a BadRow, Suspect, TableFault, Retry, TooLarge or Changed error nothing was written and
	// the lane can be used again.
	Commit(ctx context.Context, p Progress) error
	// Begin starts a transaction for Write and Finish. It returns class Changed if the table is not
	// as it was at Add.
	Begin(ctx context.Context) error
	// Write writes the rows [from, to) of those added. After a BadRow, Suspect or TableFault error
	// none of them is written, what was written before still is unless the error says Lost, and Row
	// may name the row at fault. After any other error the transaction is lost.
	Write(ctx context.Context, from, to int) error
	// Finish stores the progress and commits.
	Finish(ctx context.Context, p Progress) error
	// Rollback drops the transaction that Begin started. The lane can be used again if it returns
	// nil.
	Rollback(ctx context.Context) error
	// Fresh makes sure that the lane knows the table as it is now. The runner calls it before it
	// parks messages that Add called bad, and then adds them again if changed is true. The runner
	// also calls it once a minute while there is nothing to write: a target without connections of
	// their own lets Claim.Verify check the stored progress here.
	Fresh(ctx context.Context) (changed bool, err error)
	// Rest gives the lane's connection back. The runner calls it between batches, after the lane
	// had nothing to write for a while. The next call that needs a connection opens one.
	Rest()
}

// Progress is what a batch's transaction stores beside its rows, under the condition that the
// lane's row still has Claim.Owner, this epoch and this batch number. When it has not, the whole
// transaction must fail with class Stale. Epochs and batch numbers alone repeat when a copy of the
// data directory runs, or when the target went back in time.
type Progress struct {
	Epoch     uint64
	Batch     uint64 // of the last committed batch; this commit stores Batch+1
	Watermark uint64
	Entry     uint64 // of the queue's log: what the watermark rests on
	Applied   uint64 // messages of this lane in this epoch, this batch included
	IDs       []byte // see AppendIDs
	// Settled, when not nil, replaces State.Settled, in the row of lane -1. The lane must change
	// that row before its own, because Open locks the rows in this order.
	Settled []byte
}

// Class says what an error of a target means, and so what becomes of the batch.
type Class uint8

const (
	// Down: the target cannot be reached or used, or the outcome is unknown. Every lane stops, the
	// messages go back to the queue uncounted, and the sink opens the target again, which tells
	// what was committed. The safe class for every error that is not known.
	Down Class = iota
	// Retry: the database undid the transaction for a reason outside of it (a deadlock, say). The
	// same batch again, after a pause.
	Retry
	// TooLarge: the batch needed more of something than there is: time, memory, parameters. It is
	// tried again in smaller parts.
	TooLarge
	// BadRow: a row's own fault, beyond doubt. The batch is split until the row is found; it is
	// parked, the rest commits.
	BadRow
	// Suspect: one row's fault or the whole table's, which the error alone does not tell: a
	// permission, an error inside a trigger. It is the row's fault if other rows commit and this
	// one fails alone again.
	Suspect
	// Reference: the row refers to another one that is not there, or not yet (a foreign key). It is
	// tried again before it is parked.
	Reference
	// TableFault: the table cannot take this row as it is now, and somebody has to change the
	// table: a partition is missing, a column that the sink does not fill allows no null. Nothing
	// is parked for it.
	TableFault
	// Changed: the table is not as it was when the rows were added. Nothing was written. The lane
	// knows the table as it is now; all rows must be added again.
	Changed
	// Stale: the lane's progress is not what this sink left there: a newer opening took over, or an
	// earlier commit of unknown outcome did succeed. Opening again tells which.
	Stale
	// Fenced: another process runs this sink now. This one stops until it is told to go on.
	Fenced
	// Refused: the stored progress and the broker contradict each other. The sink stops and says
	// so.
	Refused
)

var classNames = [...]string{"down", "retry", "too large", "bad row", "suspect", "reference", "table fault", "changed", "stale", "fenced", "refused"}

// OfRow tells whether an error of this class can be laid at one row's door, so that a batch is
// split to find the row.
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
	Row    int    // of a class OfRow out of Commit and Write: the row at fault as Add counted it, from 0; -1 when not known
	Reason string // for people: the database's own words, with SQLSTATE and constraint where there are some
	Err    error
	Lost   bool // of a class OfRow out of Write: the error ended the transaction, so what was written before is gone too
}

// Error gives the reason.
func (e *Error) Error() string { return e.Reason }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// BadRowf makes an error for Lane.Add.
func BadRowf(format string, args ...any) *Error {
	return &Error{Class: BadRow, Row: -1, Reason: fmt.Sprintf(format, args...)}
}

// MissingField is the verdict over a message that lacks what a column must have.
func MissingField(c Column) *Error {
	return BadRowf("column %q: %s is missing in the message, and the column allows no null and has no default", c.Name, c.From)
}

// asError gives any error of a target a class.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Class: Down, Row: -1, Reason: err.Error(), Err: err}
}
