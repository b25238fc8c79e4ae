//go:build unix

package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile locks a file exclusively with flock, without waiting. It returns false if another open
// file has the lock. The lock belongs to the open file, so a second Lock in the same process fails,
// too.
func lockFile(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// lockDir locks a directory and returns the open directory. Closing the directory unlocks it.
// lockDir returns nil if the file system, such as NFS, cannot lock directories. The error is
// errBusy while another open file has the lock.
func lockDir(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	ok, err := lockFile(d)
	switch {
	case err == nil && ok:
		return d, nil
	case err == nil:
		return nil, joinClose(errBusy, d)
	}
	for _, unable := range []error{unix.EBADF, unix.EINVAL, unix.EISDIR, unix.ENOLCK, unix.ENOSYS, unix.ENOTSUP, unix.EOPNOTSUPP} {
		if errors.Is(err, unable) {
			return nil, d.Close()
		}
	}
	return nil, joinClose(&os.PathError{Op: "lock", Path: dir, Err: err}, d)
}

// Check compares the file with the file at its path.
func (f osFile) Check() (int64, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var open, named identity
	var openErr, namedErr error
	if err := conn.Control(func(fd uintptr) {
		open, openErr = identify(int(fd), "")
		named, namedErr = identify(unix.AT_FDCWD, f.Name())
	}); err != nil {
		return 0, err
	}
	switch {
	case openErr != nil:
		return 0, &os.PathError{Op: "fstat", Path: f.Name(), Err: openErr}
	case errors.Is(namedErr, unix.ENOENT) || errors.Is(namedErr, unix.ENOTDIR):
		return 0, &GoneError{Name: f.Name()}
	case namedErr != nil:
		return 0, &os.PathError{Op: "stat", Path: f.Name(), Err: namedErr}
	case open.dev != named.dev || open.ino != named.ino:
		return 0, &GoneError{Name: f.Name(), Replaced: true}
	}
	return open.size, nil
}

// identity identifies a file, and contains its size.
type identity struct {
	dev, ino uint64
	size     int64
}

// again repeats a call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// SyncDir syncs a directory's entries.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	// os.File.Sync is fsync; on darwin it uses F_FULLFSYNC.
	return errors.Join(d.Sync(), d.Close())
}

// Free returns the bytes that an ordinary user can still allocate.
func (OS) Free(dir string) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		return int64(st.Bavail) * int64(st.Bsize), nil
	}
}

// isNoSpace reports whether an error means a full disk or quota.
func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// identifyByStat is identify on systems without statx.
func identifyByStat(fd int, path string) (identity, error) {
	var s unix.Stat_t
	err := again(func() error {
		if path == "" {
			return unix.Fstat(fd, &s)
		}
		return unix.Stat(path, &s)
	})
	return identity{uint64(s.Dev), s.Ino, s.Size}, err
}
