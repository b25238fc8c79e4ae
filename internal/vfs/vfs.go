// Package vfs is the small file system through which all durable data is written. The same code
// runs on real files (OS), on a file system in memory that can crash (Mem), and on either of them
// with injected errors (Inject).
//
// The guarantees after a crash are the weakest of all supported file systems. Bytes are durable
// after Sync of their file. Names are durable after SyncDir of their directory. Before that, any
// part of the changes can survive or be lost. docs/assumptions.md lists all other assumptions.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Mode is how Open opens a file.
type Mode uint8

const (
	// Read opens an existing file for reading.
	Read Mode = iota
	// ReadWrite opens an existing file for reading and writing.
	ReadWrite
	// Create creates a file and opens it for reading and writing. It fails with fs.ErrExist if the
	// name exists.
	Create
)

// FS is a file system. Many goroutines may call its methods. Names are paths in the form of the
// operating system. Errors wrap those of the operating system, so errors.Is finds fs.ErrNotExist,
// syscall.ENOSPC and so on.
type FS interface {
	// Open opens or creates a file.
	Open(name string, mode Mode) (File, error)
	// Rename renames a file atomically, and replaces a file that had the new name. The change is
	// durable after SyncDir.
	Rename(from, to string) error
	// Remove removes a file. The change is durable after SyncDir.
	Remove(name string) error
	// List returns the sorted names of the files and directories in a directory, without their
	// path.
	List(dir string) ([]string, error)
	// Mkdir creates a directory and its missing parents, durably. It succeeds if the directory
	// exists.
	Mkdir(dir string) error
	// SyncDir makes the names in a directory durable, together with the files that they refer to.
	SyncDir(dir string) error
	// Lock locks a directory exclusively, until the Lock is closed or the process ends. name is the
	// path of a lock file in the directory. Lock writes owner, a line of text that other processes
	// can show, into the file. Removing the file does not unlock the directory. While another
	// process has the lock, the error is a *LockedError.
	Lock(name, owner string) (Lock, error)
	// Free returns the bytes that this process can still allocate in a directory's file system.
	Free(dir string) (int64, error)
}

// Lock is a lock of this process on a directory.
type Lock interface {
	// Check returns nil while the lock excludes other processes. On file systems that cannot lock
	// directories, the lock depends on its file. There, Check returns a *GoneError if the file was
	// removed or replaced.
	Check() error
	io.Closer
}

// File is an open file. Calls of ReadAt may overlap with calls of every other method. Only one
// goroutine at a time may write.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteVec writes buffers one after another at a position, like one WriteAt of their
	// concatenation. It returns the number of bytes written, and an error if not all were written.
	WriteVec(bufs [][]byte, off int64) (int64, error)
	// Sync makes the file's bytes and its size durable. After an error, the state of all writes
	// since the last Sync is unknown. Another Sync may succeed without having written them, so do
	// not retry.
	Sync() error
	// Preallocate makes the file at least size bytes long and reserves space for them on the
	// medium. Bytes that were never written read as zeros. It fails with syscall.ENOSPC if there is
	// no space.
	Preallocate(size int64) error
	// Truncate sets the file's size.
	Truncate(size int64) error
	// Size returns the file's size in bytes.
	Size() (int64, error)
	// Check returns the file's size. It returns a *GoneError if the path with which the file was
	// opened no longer leads to this file: the file or a directory above it was removed, renamed or
	// replaced. It costs two system calls.
	Check() (int64, error)
	// Close closes the file; it does not sync.
	Close() error
}

// ErrLocked matches, with errors.Is, the error for a lock that another process has.
var ErrLocked = errors.New("locked")

// LockedError is the error for a lock that another process has. It names that process.
type LockedError struct {
	Name  string // the lock file
	Owner string // the line that the owner of the lock wrote; can be empty
}

// Error names the lock file and the owner of the lock.
func (e *LockedError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("%s is locked by another process", e.Name)
	}
	return fmt.Sprintf("%s is locked by %s", e.Name, e.Owner)
}

// Is makes every LockedError match ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// GoneError says that a path no longer leads to the file that was opened with it.
type GoneError struct {
	Name     string
	Replaced bool // the path leads to another file
}

// Error names the file.
func (e *GoneError) Error() string {
	if e.Replaced {
		return fmt.Sprintf("%s is no longer the file that was opened: somebody put another file, or another directory, in its place", e.Name)
	}
	return fmt.Sprintf("%s is gone: somebody removed or moved the file, or a directory above it", e.Name)
}

// IsNoSpace reports whether an error means that the disk, or the user's quota, is full.
func IsNoSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || isNoSpace(err) }

// IsShortage reports whether an error means that the process lacks file descriptors or memory now.
// The failed call changed nothing and can be repeated later.
func IsShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// maxOwner limits the bytes read from a lock file, because any program can have written the file.
const maxOwner = 256

// writeVec is WriteVec with one WriteAt for each buffer, for files without a faster call.
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

// zeroFill extends a file with zeros, for operating systems without preallocation.
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
