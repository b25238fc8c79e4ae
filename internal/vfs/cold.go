package vfs

import "errors"

// ColdUnit is the unit of ReadCold. ReadCold reads the medium only if position and length are
// multiples of this unit.
const ColdUnit = 4096

// coldReader is a file system that can read without the page cache.
type coldReader interface {
	readCold(name string, p []byte, off int64) (int, error)
}

// ReadCold reads from a file like ReadAt. If the file system supports it, ReadCold reads the medium
// and not the page cache, because the page cache can be intact when the disk is damaged, or the
// reverse. Such a read does not change the page cache. On other file systems ReadCold is an
// ordinary read. The caller must only read synced bytes.
//
// It opens the file for each call, so a rename or removal of the file waits for one read at most.
func ReadCold(fs FS, name string, p []byte, off int64) (int, error) {
	if c, ok := fs.(coldReader); ok {
		return c.readCold(name, p, off)
	}
	f, err := fs.Open(name, Read)
	if err != nil {
		return 0, err
	}
	n, err := f.ReadAt(p, off)
	if closeErr := f.Close(); n < len(p) || closeErr != nil { // after a full read, err (possibly io.EOF) does not matter
		err = errors.Join(err, closeErr)
	}
	return n, err
}
