package disklog

import (
	"errors"
	"fmt"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

// A log must not confirm an entry that a later opening cannot find. So after every sync, before it
// confirms, the writer checks that the active segment still has its name and its size. The name is
// a path, so the check also detects that the directory was moved, removed or replaced. Maintenance
// and snapshots access files by path. They call checkPlace before each change, because the path can
// meanwhile lead into another process's directory.

// checkActive returns an error if the active segment is not at its path, or if its file was
// shortened. The writer calls it.
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

// checkPlace returns an error if the state file is not at its path, or if the lock no longer
// excludes other processes. Any goroutine may call it while the log is open.
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

// misled adds advice to the error for a path that leads to another file. It returns other errors
// unchanged.
func misled(err error) error {
	var gone *vfs.GoneError
	if !errors.As(err, &gone) {
		return err
	}
	return wrap(surgetank.CodeInternal, fmt.Sprintf("%v; nothing more is confirmed; put the data directory and its files back where they were, "+
		"run surgetank verify on it, and start again", gone), gone)
}
