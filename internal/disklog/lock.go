package disklog

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

// lockDir locks a data directory.
func lockDir(fs vfs.FS, dir string, now time.Time) (vfs.Lock, error) {
	lock, err := fs.Lock(lockPath(dir), lockOwner(now))
	if err != nil {
		return nil, mapLock(dir, err)
	}
	return lock, nil
}

// lockClosed locks a log for a tool. The log must exist: a tool creates no directory and no file.
func lockClosed(fs vfs.FS, dir string) (vfs.Lock, error) {
	ls, err := listDir(fs, dir)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	if !ls.state && len(ls.segments) == 0 {
		return nil, wrap(surgetank.CodeNotFound, fmt.Sprintf("there is no log in %s; name the directory that a server keeps its data in", dir), err)
	}
	return lockDir(fs, dir, time.Now())
}

func lockPath(dir string) string { return filepath.Join(dir, lockName) }

// lockOwner returns the line that is shown to a process that cannot get the lock.
func lockOwner(now time.Time) string {
	return fmt.Sprintf("process %d (since %s)", os.Getpid(), now.UTC().Format(time.RFC3339))
}
