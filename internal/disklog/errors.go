package disklog

import (
	"errors"
	"fmt"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/vfs"
)

// advice ends the message of every error about damage.
const advice = "nothing was changed; run `surgetank verify` on the data directory to see all of the damage, restore a backup, " +
	"or save the intact part with `surgetank repair`"

// wrap makes a surgetank.Error whose cause can be several errors.
func wrap(code surgetank.Code, message string, causes ...error) error {
	return &surgetank.Error{Code: code, Message: message, Err: errors.Join(causes...)}
}

// damaged returns the error for stored bytes that differ from what was written.
func damaged(file string, offset int64, format string, args ...any) error {
	return wrap(surgetank.CodeCorrupt, fmt.Sprintf("%s is damaged at byte %d: %s; %s", file, offset, fmt.Sprintf(format, args...), advice),
		commitlog.ErrCorrupt)
}

// misplaced returns the error for an intact file in the wrong place.
func misplaced(file string, offset int64, what string) error {
	return wrap(surgetank.CodeCorrupt, fmt.Sprintf("%s at byte %d: %s; nothing was changed", file, offset, what), commitlog.ErrCorrupt)
}

// ErrLevel is the cause of the error for a log with a format level that this build cannot read. The
// log is not damaged.
var ErrLevel = errors.New("format level out of range")

// unfit returns the error for a log with a format level that this build cannot open.
func unfit(file string, why error) error {
	return wrap(surgetank.CodeInvalid, fmt.Sprintf("the data directory of %s cannot be opened by this build: %v; nothing was changed", file, why), ErrLevel, why)
}

// unreadable returns the error for bytes that the file system fails to read.
func unreadable(file string, offset int64, err error) error {
	return wrap(surgetank.CodeInternal, fmt.Sprintf("reading %s at byte %d failed: %v; check the disk and the system's log", file, offset, err), err)
}

// failed returns the final error of a log that could not write. uncertain says that the last entry
// is possibly stored.
func failed(cause error, uncertain bool) error {
	if uncertain {
		return wrap(surgetank.CodeUncertain, fmt.Sprintf("storing an entry failed: %v; it may or may not be stored, and the log must be opened again", cause),
			commitlog.ErrFailed, cause)
	}
	return wrap(surgetank.CodeInternal, fmt.Sprintf("the log failed earlier: %v; it must be opened again", cause), commitlog.ErrFailed, cause)
}

var errClosed = wrap(surgetank.CodeClosed, "the log is closed", commitlog.ErrClosed)

// mapLock converts an error of locking into an error of the log.
func mapLock(dir string, err error) error {
	var held *vfs.LockedError
	if errors.As(err, &held) {
		owner := held.Owner
		if owner == "" {
			owner = "another process"
		}
		return wrap(surgetank.CodeExists, fmt.Sprintf("the data directory %s is in use by %s; stop that first, or choose another directory", dir, owner),
			commitlog.ErrLocked, err)
	}
	return wrap(surgetank.CodeInternal, fmt.Sprintf("locking the data directory %s failed: %v", dir, err), err)
}
