package vfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readCold reads with O_DIRECT. Some file systems do not support O_DIRECT, or require other
// alignments of memory and positions, and return an error. In that case readCold drops the cached
// pages and reads as usual. This also reads the disk, but it removes cached pages that other
// readers use, and adds pages that no other reader needs.
func (o OS) readCold(name string, p []byte, off int64) (int, error) {
	if off%ColdUnit == 0 && len(p)%ColdUnit == 0 {
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
		if err == nil {
			n, err := osFile{f}.readDirect(p, off)
			if err = closed(err, f); !notDirect(err) {
				return n, err
			}
		} else if !notDirect(err) {
			return 0, err
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	// This is only advice to the kernel: pages that stay cached are read from the cache.
	_ = osFile{f}.control("fadvise", func(fd int) error { return unix.Fadvise(fd, off, int64(len(p)), unix.FADV_DONTNEED) })
	n, err := f.ReadAt(p, off)
	return n, closed(err, f)
}

// notDirect reports whether an error means that the file system does not support O_DIRECT.
func notDirect(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// closed closes a file that was only read. It returns err, the error of the read, or else the error
// of closing.
func closed(err error, f *os.File) error {
	if closeErr := f.Close(); err == nil {
		return closeErr
	}
	return err
}

// readDirect fills p up to the end of the file. If a read ends inside a unit, the file ends there,
// and another direct read from that position would be invalid.
func (f osFile) readDirect(p []byte, off int64) (int, error) {
	total := 0
	for total < len(p) {
		var n int
		err := f.control("pread", func(fd int) (err error) {
			for {
				if n, err = unix.Pread(fd, p[total:], off+int64(total)); !errors.Is(err, unix.EINTR) {
					return err
				}
			}
		})
		if err != nil {
			return total, err
		}
		total += n
		if n == 0 || n%ColdUnit != 0 {
			break
		}
	}
	if total < len(p) {
		return total, io.EOF
	}
	return total, nil
}
