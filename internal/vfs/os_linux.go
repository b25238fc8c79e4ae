package vfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxIov is the most buffers of one pwritev (IOV_MAX).
const maxIov = 1024

// control runs a system call on the file's descriptor and wraps its error. The descriptor cannot be
// closed during the call.
func (f osFile) control(op string, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := conn.Control(func(fd uintptr) { callErr = call(int(fd)) }); err != nil {
		return err
	}
	if callErr != nil {
		return &os.PathError{Op: op, Path: f.Name(), Err: callErr}
	}
	return nil
}

// Sync is fdatasync: it syncs the bytes and the metadata needed to read them, such as the size. A
// call that a signal interrupted is repeated, because it has not reported a result. Any other error
// is final.
func (f osFile) Sync() error {
	return f.control("fdatasync", func(fd int) error {
		for {
			if err := unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
}

// identify returns the identity of the file open as fd. If path is not empty, it returns the
// identity of the file at the path.
//
// It does not request the file's times. Since Linux 6.13, a file system updates a file's times at
// each write after they were requested (multigrain timestamps), so each write changes the inode. A
// publisher that waits for each confirm lost a quarter of its rate.
func identify(fd int, path string) (identity, error) {
	flags := 0
	if path == "" {
		flags = unix.AT_EMPTY_PATH
	}
	var s unix.Statx_t
	err := again(func() error { return unix.Statx(fd, path, flags, unix.STATX_INO|unix.STATX_SIZE, &s) })
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // Linux before 4.11, or a sandbox that forbids statx
		return identifyByStat(fd, path)
	}
	return identity{unix.Mkdev(s.Dev_major, s.Dev_minor), s.Ino, int64(s.Size)}, err
}

// Preallocate reserves blocks with fallocate. If the file system does not support that, it writes
// zeros.
func (f osFile) Preallocate(size int64) error {
	have, err := f.Size()
	if err != nil {
		return err
	}
	if size <= 0 || size < have {
		return nil
	}
	err = f.control("fallocate", func(fd int) error {
		for {
			if err := unix.Fallocate(fd, 0, 0, size); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return zeroFill(f, size)
	}
	return err
}

// WriteVec calls pwritev, with at most IOV_MAX buffers in each call.
func (f osFile) WriteVec(bufs [][]byte, off int64) (int64, error) {
	if len(bufs) == 1 {
		n, err := f.WriteAt(bufs[0], off)
		return int64(n), err
	}
	var total int64
	rest := append(make([][]byte, 0, len(bufs)), bufs...) // the caller's slice must not be changed
	for len(rest) > 0 {
		if len(rest[0]) == 0 {
			rest = rest[1:]
			continue
		}
		var n int
		err := f.control("pwritev", func(fd int) error {
			for {
				var err error
				if n, err = unix.Pwritev(fd, rest[:min(len(rest), maxIov)], off+total); !errors.Is(err, unix.EINTR) {
					return err
				}
			}
		})
		if err == nil && n <= 0 {
			err = &os.PathError{Op: "pwritev", Path: f.Name(), Err: io.ErrShortWrite}
		}
		if err != nil {
			return total, err
		}
		total += int64(n)
		for n > 0 {
			if n < len(rest[0]) {
				rest[0] = rest[0][n:]
				break
			}
			n -= len(rest[0])
			rest = rest[1:]
		}
	}
	return total, nil
}
