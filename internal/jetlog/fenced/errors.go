package fenced

import (
	"errors"
	"fmt"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
)

// wrap makes a surgetank.Error whose cause can be several errors.
func wrap(code surgetank.Code, message string, causes ...error) error {
	return &surgetank.Error{Code: code, Message: message, Err: errors.Join(causes...)}
}

// failed returns the final error of a log that could not write. uncertain says that the entry was
// sent and is possibly stored.
func (l *Log) failed(cause error, uncertain bool) error {
	if uncertain {
		return wrap(surgetank.CodeUncertain, fmt.Sprintf("storing an entry in the log %s failed: %v; it may or may not be stored, and the log must be opened again", l.o.Name, cause),
			commitlog.ErrFailed, cause)
	}
	return wrap(surgetank.CodeInternal, fmt.Sprintf("the log %s failed earlier: %v; it must be opened again", l.o.Name, cause), commitlog.ErrFailed, cause)
}

// fencedBy returns the error of a log that has another owner. wasSent says that the entry was sent
// before. Such an entry is not in the log, but callers are told less, because the entry's outputs
// can be known to somebody.
func (l *Log) fencedBy(owner Owner, at uint64, wasSent bool) error {
	code, what := surgetank.CodeUnavailable, "nothing was stored"
	if wasSent {
		code, what = surgetank.CodeUncertain, "the entry is not confirmed"
	}
	who := "another process"
	if owner != (Owner{}) { // it is zero if the new owner has trimmed its F record
		who = fmt.Sprintf("another process, the owner %s", owner)
	}
	return wrap(code, fmt.Sprintf("the log %s was opened by %s, before or at position %d; %s; repeat the request there", l.o.Name, who, at, what),
		commitlog.ErrFenced)
}

// corrupt returns the error for records that no replica has intact.
func (l *Log) corrupt(at uint64, why error) error {
	return wrap(surgetank.CodeCorrupt, fmt.Sprintf("the record at position %d of the log %s cannot be read from any replica: %v; nothing was changed; "+
		"compare the replicas, remove the damaged one from the stream and add it again, or restore a backup", at, l.o.Name, why), commitlog.ErrCorrupt)
}

// unavailable returns the error for a stream that does not answer.
func (l *Log) unavailable(doing string, err error) error {
	return wrap(surgetank.CodeUnavailable, fmt.Sprintf("%s the log %s failed: %v; try again later", doing, l.o.Name, err), err)
}

var errClosed = wrap(surgetank.CodeClosed, "the log is closed", commitlog.ErrClosed)
