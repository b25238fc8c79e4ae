package vfs

import "errors"

// ColdUnit is the unit of ReadCold. Only if position and length are multiples of it does ReadCold
// read the medium.
const ColdUnit = 4096

// coldReader is a file system that can read without the page cache.
type coldReader interface {
	readCold(name string, p []byte, off int64) (int, error)
}

// ReadCold reads from a file like ReadAt, but reads the medium and not the page cache, if the file
// system can do that. The page cache can be intact when the disk is damaged, and the other way
// round. The read adds nothing to the page cache and removes nothing. On other file systems it is
// an ordinary read. Only synced bytes may be read.
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
	if closeErr := f.Close(); n < len(p) || closeErr != nil { // a full read needs no error of its own
		err = errors.Join(err, closeErr)
	}
	return n, err
}
