package disklog

import (
	"errors"
	"fmt"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

// A log must not confirm what nobody will find. So the writer looks, after every sync and before it
// confirms, whether the active segment still has its name and its size. The name is a path, so that
// a directory that was moved, removed or replaced is seen by the same look. Maintenance and
// snapshots name files by their paths: they look before they change anything, because the path may
// lead into a directory that belongs to another process by now.

// checkActive returns an error when the active segment is not in its place, or is shorter than it
// was made. The writer calls it.
func (l *Log) checkActive() error {
	w := &l.writer
	size, err := w.out.Check()
	if err != nil {
		return misled(err)
	}
	if size < w.active.size {
		return wrap(surgetank.CodeInternal, fmt.Sprintf("%s has %d bytes and should have %d: somebody cut the file while the log was writing into it; "+
			"stop what changes files in the data directory, and run surgetank verify on it", w.active.name, size, w.active.size))
	}
	return nil
}

// checkPlace returns an error when the state file is not in its place, or the lock does not keep
// others out any more. It may be called by any goroutine while the log is open.
func (l *Log) checkPlace() error {
	l.placeMu.Lock()
	defer l.placeMu.Unlock()
	if f := l.keeper.stateFile; f != nil {
		if _, err := f.Check(); err != nil {
			return misled(err)
		}
	}
	return misled(l.lock.Check())
}

// misled says what to do about a name that leads elsewhere. Another error stays as it is.
func misled(err error) error {
	var gone *vfs.GoneError
	if !errors.As(err, &gone) {
		return err
	}
	return wrap(surgetank.CodeInternal, fmt.Sprintf("%v; nothing more is confirmed; put the data directory and its files back where they were, "+
		"run surgetank verify on it, and start again", gone), gone)
}
