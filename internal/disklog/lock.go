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

// lockDir takes the lock of a data directory.
func lockDir(fs vfs.FS, dir string, now time.Time) (vfs.Lock, error) {
	lock, err := fs.Lock(lockPath(dir), lockOwner(now))
	if err != nil {
		return nil, mapLock(dir, err)
	}
	return lock, nil
}

// lockClosed takes the lock of a log that a tool wants to look at. There must be one: a tool makes
// no directory and no file where there is none.
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

// lockOwner is the line that a process refused by the lock is shown.
func lockOwner(now time.Time) string {
	return fmt.Sprintf("process %d (since %s)", os.Getpid(), now.UTC().Format(time.RFC3339))
}
