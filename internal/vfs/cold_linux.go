package vfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readCold reads with O_DIRECT. Not every file system knows it, and each has its own demands on
// memory and positions; where one says that something is invalid, the pages that are cached are
// given up first and then read as usual. That asks the disk, too, but costs other readers what was
// cached until it is read again, and leaves behind what nobody else wants.
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
	// It is advice: pages that stay are read as they are.
	_ = osFile{f}.control("fadvise", func(fd int) error { return unix.Fadvise(fd, off, int64(len(p)), unix.FADV_DONTNEED) })
	n, err := f.ReadAt(p, off)
	return n, closed(err, f)
}

// notDirect tells the answers of file systems that cannot read so.
func notDirect(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// closed closes a file that was only read, and gives what came of reading, or else of that.
func closed(err error, f *os.File) error {
	if closeErr := f.Close(); err == nil {
		return closeErr
	}
	return err
}

// readDirect fills p, but for what lies behind the end of the file. Behind a read that ends inside
// a unit there is nothing more: the file ends there, and going on from there would be no direct
// read.
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
