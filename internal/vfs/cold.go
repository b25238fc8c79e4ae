package vfs

import "errors"

// ColdUnit is what positions and lengths of ReadCold must be multiples of for it to reach the
// medium.
const ColdUnit = 4096

// coldReader is a file system that can read past the memory in which the operating system keeps
// files.
type coldReader interface {
	readCold(name string, p []byte, off int64) (int, error)
}

// ReadCold reads from a file as ReadAt of a file opened for it would, but asks the medium where the
// file system can: what lies in the page cache may be whole where the disk has rotted, and the
// other way round. What is in that cache stays there, and what is not does not come in. Where that
// cannot be had it is an ordinary read. Only what was synced may be read so.
//
// It opens the file anew each time and holds it no longer than it reads, so nobody who renames or
// removes files has to wait for more than one read.
func ReadCold(fs FS, name string, p []byte, off int64) (int, error) {
	if c, ok := fs.(coldReader); ok {
		return c.readCold(name, p, off)
	}
	f, err := fs.Open(name, Read)
	if err != nil {
		return 0, err
	}
	n, err := f.ReadAt(p, off)
	if closeErr := f.Close(); n < len(p) || closeErr != nil { // a whole read has no error of its own
		err = errors.Join(err, closeErr)
	}
	return n, err
}
