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

// OS is the machine's file system. Files are made for this user alone (0600, directories 0700).
type OS struct{}

var _ FS = OS{}

// osFile is an os.File whose Sync, Preallocate and WriteVec are the platform's best; see os_linux.go and its siblings.
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

// List gives the sorted names in a directory.
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

// Mkdir makes a directory and its parents, and syncs the directory that each new one is entered in. One that exists may have been made by
// a process that was killed before it could do so; its name is synced again, except where the directory it is in may not be read or
// cannot be synced, for there somebody else made it for us.
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

// Lock takes the operating system's exclusive lock on a file and writes the owner's line into it.
func (OS) Lock(name, owner string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := lockFile(f)
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: err}, f.Close())
	}
	if !ok {
		line := make([]byte, maxOwner)
		n, readErr := f.ReadAt(line, 0)
		if readErr != nil && readErr != io.EOF {
			n = 0 // the lock is what matters; its holder's line is a courtesy
		}
		held := &LockedError{Name: name, Owner: printable(string(line[:n]))}
		if err := f.Close(); err != nil {
			return nil, errors.Join(held, err)
		}
		return nil, held
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.WriteAt([]byte(printable(owner)+"\n"), 0); err != nil {
		// A full disk must not keep a server from starting: the lock itself is held.
		if !IsNoSpace(err) {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &osLock{f}, nil
}

// osLock is a held lock; closing the file releases it. The file stays: removing it would let two processes hold
// locks on two files of one name.
type osLock struct{ f *os.File }

// Close empties the owner's line and releases the lock.
func (l *osLock) Close() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

// Size gives the file's size.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// printable keeps the first line of a text, without control characters and bounded.
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
