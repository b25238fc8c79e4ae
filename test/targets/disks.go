//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// smallDisk mounts a file system of mib MiB at a new directory. unmount ends it.
func smallDisk(at string, mib int) (unmount func(), err error) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("surgetank-targets", at, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0755", mib)); err != nil {
		return nil, fmt.Errorf("mounting a tmpfs: %w", err)
	}
	return func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) }, nil
}

// fill uses all but leave bytes of a small disk while other programs write to it. free makes the
// space available again.
func fill(disk string, leave int64) (free func() error, err error) {
	name := filepath.Join(disk, "ballast")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	taken := int64(0)
	for err == nil {
		var s syscall.Statfs_t
		if err = syscall.Statfs(disk, &s); err != nil {
			break
		}
		size := int64(s.Bavail)*s.Bsize - leave
		if size <= 0 {
			break
		}
		err = syscall.Fallocate(int(f.Fd()), 0, taken, size)
		switch {
		case err == nil:
			taken += size
		case errors.Is(err, syscall.ENOSPC): // another program used space meanwhile: check the free space again
			err = nil
		}
	}
	return func() error { return os.Remove(name) }, errors.Join(err, f.Close())
}
