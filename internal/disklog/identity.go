package disklog

import (
	"errors"
	iofs "io/fs"
	"path/filepath"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

// Identity is the random id of a log. The zero Identity names no log. A copy of a log has the same
// identity.
type Identity struct{ log id }

// Identity returns the identity of the open log.
func (l *Log) Identity() Identity { return Identity{l.files.log} }

// Check returns nil if the log in dir has this identity. It changes nothing, also if dir does not
// exist. The error is CodeUnavailable if dir has no log or another log: a file system is probably
// not mounted, and the directory below its mount point is visible instead.
func (i Identity) Check(fs vfs.FS, dir string) error {
	name := filepath.Join(dir, stateName)
	f, err := fs.Open(name, vfs.Read)
	if err != nil {
		if errors.Is(err, iofs.ErrNotExist) {
			return absent("there is no log in "+dir+" now", err)
		}
		return openError(dir, err)
	}
	st, err := readState(f, name)
	if err = errorsJoin(err, f.Close()); err != nil {
		return openError(dir, err)
	}
	if st.log != i.log {
		return absent("there is another log in "+dir+" now", nil)
	}
	return nil
}

// Exists reports whether there is a log in dir. It changes nothing, also if dir does not exist.
func Exists(fs vfs.FS, dir string) (bool, error) {
	ls, err := listDir(fs, dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	return err == nil && (ls.state || len(ls.segments) > 0), err
}

// absent returns the error for a directory in which the log is not.
func absent(what string, cause error) error {
	return wrap(surgetank.CodeUnavailable, what+"; mount the file system again, or put the data directory back, and leave the other files where they are", cause)
}
