package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockByte is the position of the locked byte. It is far after the owner's line, because on Windows
// other processes cannot read locked bytes.
const lockByte = 1 << 30

// lockFile locks one byte without waiting. It returns false if another open file has the lock.
func lockFile(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: lockByte})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

// lockDir locks nothing. While the lock file is open, no process on Windows can remove or rename it
// or a directory above it.
func lockDir(string) (*os.File, error) { return nil, nil }

// Check returns the size. While a file is open in this way, no process on Windows can remove or
// rename it or a directory above it.
func (f osFile) Check() (int64, error) { return f.Size() }

// SyncDir does nothing. Windows cannot sync a directory, and NTFS journals names in order; see
// docs/assumptions.md.
func (OS) SyncDir(string) error { return nil }

// Free returns the bytes that this user can still allocate.
func (OS) Free(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, &os.PathError{Op: "free space", Path: dir, Err: err}
	}
	return int64(min(free, 1<<62)), nil
}

// isNoSpace reports whether an error means a full disk or quota.
func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
