// Package vfs is the small file system that everything durable is written through: a few
// operations, so that the same code runs on the machine's files (OS), on a file system in memory
// that can crash (Mem), and on either with errors injected (Inject).
//
// The rules for what a crash leaves are the weakest that the supported file systems share: bytes
// are durable after Sync of their file, names are durable after SyncDir of their directory, and
// before that any part of what was done since may be there or not. docs/assumptions.md says what is
// relied on beyond that.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Mode says how Open opens a file.
type Mode uint8

const (
	// Read opens an existing file for reading.
	Read Mode = iota
	// ReadWrite opens an existing file for reading and writing.
	ReadWrite
	// Create makes a file and opens it for reading and writing; a file of that name is an error
	// (fs.ErrExist).
	Create
)

// FS is a file system. Its methods may be called by many goroutines. Names are paths in the form of
// the operating system. Errors wrap the operating system's, so errors.Is finds fs.ErrNotExist,
// syscall.ENOSPC and so on.
type FS interface {
	// Open opens or creates a file.
	Open(name string, mode Mode) (File, error)
	// Rename gives a file another name, atomically, in place of a file that had it. It is durable
	// after SyncDir.
	Rename(from, to string) error
	// Remove removes a file. It is durable after SyncDir.
	Remove(name string) error
	// List gives the names of the files and directories in a directory, sorted, without their path.
	List(dir string) ([]string, error)
	// Mkdir makes a directory and the ones above it that are missing, durably. One that exists is
	// no error.
	Mkdir(dir string) error
	// SyncDir makes durable which names the directory holds and which files they stand for.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a directory, held until the lock is closed or the process
	// ends. name is the path of a file in the directory. That file names the holder: owner is a
	// line of text that others are shown. Removing the file does not end the lock. While another
	// holds the lock the error is a *LockedError.
	Lock(name, owner string) (Lock, error)
	// Free gives the bytes that this process may still allocate in a directory's file system.
	Free(dir string) (int64, error)
}

// Lock is a held lock.
type Lock interface {
	// Check returns nil while the lock keeps others out. On file systems without locks on
	// directories the lock depends on its file: Check returns a *GoneError when that file was
	// removed or replaced.
	Check() error
	io.Closer
}

// File is an open file. ReadAt may run beside every other method; writing methods are for one
// goroutine at a time.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteVec writes buffers one behind the other at a position, as one WriteAt of their
	// concatenation would, without making it. It gives the number of bytes that were written; fewer
	// than all comes with an error.
	WriteVec(bufs [][]byte, off int64) (int64, error)
	// Sync makes the file's bytes and its size durable. After an error nothing is known about what
	// was written since the last Sync, and another Sync may well succeed without having written it:
	// never try again.
	Sync() error
	// Preallocate makes the file at least size bytes long with room for them on the medium, as
	// zeros where nothing was written. It fails with syscall.ENOSPC where there is no room.
	Preallocate(size int64) error
	// Truncate sets the file's size.
	Truncate(size int64) error
	// Size gives the file's size in bytes.
	Size() (int64, error)
	// Check returns the file's size. It returns a *GoneError when the name that the file was opened
	// by does not lead to this file any more: the file was removed, renamed or replaced, or a
	// directory above it was. It costs two system calls.
	Check() (int64, error)
	// Close closes the file; it does not sync.
	Close() error
}

// ErrLocked is the target for errors.Is of a lock that another holds.
var ErrLocked = errors.New("locked")

// LockedError says who holds a lock.
type LockedError struct {
	Name  string // the lock file
	Owner string // the line its holder gave; may be empty
}

// Error names the file and its holder.
func (e *LockedError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("%s is locked by another process", e.Name)
	}
	return fmt.Sprintf("%s is locked by %s", e.Name, e.Owner)
}

// Is makes every LockedError an ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// GoneError says that a name does not lead any more to the file that was opened by it.
type GoneError struct {
	Name     string
	Replaced bool // the name leads to another file
}

// Error names the file.
func (e *GoneError) Error() string {
	if e.Replaced {
		return fmt.Sprintf("%s is not the file any more that was opened: somebody put another one, or another directory, in its place", e.Name)
	}
	return fmt.Sprintf("%s is gone: somebody removed or moved the file, or a directory above it", e.Name)
}

// IsNoSpace tells whether an error means that the disk, or the user's share of it, is full.
func IsNoSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || isNoSpace(err) }

// IsShortage tells whether an error means that the process lacks file descriptors or memory for
// now: nothing was done, and the call may be made again later.
func IsShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// maxOwner bounds what is read of a lock file, which anybody may have written.
const maxOwner = 256

// writeVec is WriteVec by one WriteAt a buffer, for files that know no better.
func writeVec(f io.WriterAt, bufs [][]byte, off int64) (int64, error) {
	var total int64
	for _, b := range bufs {
		n, err := f.WriteAt(b, off+total)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// zeroFill extends a file with written zeros, where the operating system has no preallocation to
// offer.
func zeroFill(f File, size int64) error {
	have, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, min(max(size-have, 0), 1<<20))
	for have < size {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-have)], have)
		have += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
