package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// OS is the operating system's file system. Only the process's user may access the files that OS
// creates (mode 0600, directories 0700).
type OS struct{}

var _ FS = OS{}

// osFile is an os.File with platform-specific Sync, Preallocate and WriteVec; see os_linux.go and
// os_other.go.
type osFile struct {
	*os.File
}

// Open opens or creates a file.
func (OS) Open(name string, mode Mode) (File, error) {
	flag := os.O_RDONLY
	switch mode {
	case ReadWrite:
		flag = os.O_RDWR
	case Create:
		flag = os.O_RDWR | os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename renames a file.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove removes a file.
func (OS) Remove(name string) error { return os.Remove(name) }

// List returns the sorted names in a directory.
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Mkdir creates a directory and its parents. It syncs the parent of each new directory. The name of
// an existing directory is synced again, because the process that created it was possibly killed
// before the sync. If the parent cannot be read or synced, another user created the directory, and
// no sync is needed.
func (o OS) Mkdir(dir string) error {
	dir = filepath.Clean(dir)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(dir)
		if parent == dir {
			return err
		}
		if err := o.Mkdir(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		info, statErr := os.Stat(dir)
		if statErr != nil {
			return statErr
		}
		if !info.IsDir() {
			return err
		}
		err = o.SyncDir(filepath.Dir(dir))
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
			return nil
		}
		return err
	}
	if err != nil {
		return err
	}
	return o.SyncDir(filepath.Dir(dir))
}

// Lock locks the directory and the file exclusively, and writes the owner's line into the file. The
// lock on the directory is decisive: the file can be removed, and then a second process would
// create and lock a new file. The lock on the file excludes older versions, which do not lock the
// directory. It is the only lock if the system cannot lock directories.
func (OS) Lock(name, owner string) (_ Lock, err error) {
	l := &osLock{name: name}
	defer func() {
		if err != nil {
			err = joinClose(err, l.file, l.dir)
		}
	}()
	l.dir, err = lockDir(filepath.Dir(name))
	if errors.Is(err, errBusy) {
		return nil, &LockedError{Name: name, Owner: ownerIn(name)}
	}
	if err != nil {
		return nil, err
	}
	if l.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	ok, err := lockFile(l.file)
	if err != nil {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	if !ok {
		return nil, &LockedError{Name: name, Owner: ownerIn(name)}
	}
	if err := l.file.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := l.file.WriteAt([]byte(printable(owner)+"\n"), 0); err != nil {
		// A full disk must not prevent an opening, so the lock is valid without the line.
		if !IsNoSpace(err) {
			return nil, err
		}
	}
	return l, nil
}

// errBusy is the error of lockDir for a directory that another open file has locked.
var errBusy = errors.New("the directory is locked")

// joinClose closes files after an error. It skips nil files.
func joinClose(err error, files ...*os.File) error {
	for _, f := range files {
		if f == nil {
			continue
		}
		if closeErr := f.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}
	return err
}

// ownerIn reads the owner's line of a lock file. If it cannot be read, the owner is unknown.
func ownerIn(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	line := make([]byte, maxOwner)
	n, err := f.ReadAt(line, 0)
	if err != nil && err != io.EOF {
		n = 0
	}
	return printable(string(line[:n]))
}

// osLock is a lock of this process. Closing its files unlocks. The lock file stays, because other
// programs possibly wait for its lock.
type osLock struct {
	name string
	dir  *os.File // the locked directory; nil if directories cannot be locked
	file *os.File // the locked file
}

// Check checks the lock file if the lock depends on it.
func (l *osLock) Check() error {
	if l.dir != nil {
		return nil
	}
	_, err := osFile{l.file}.Check()
	return err
}

// Close clears the owner's line and unlocks.
func (l *osLock) Close() error {
	err := errors.Join(l.file.Truncate(0), l.file.Close())
	if l.dir != nil {
		err = errors.Join(err, l.dir.Close())
	}
	return err
}

// Size returns the file's size.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// printable returns the first line of a text, without control characters and with a limited length.
func printable(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, s)
	if len(s) > maxOwner-1 {
		s = s[:maxOwner-1]
	}
	return s
}
