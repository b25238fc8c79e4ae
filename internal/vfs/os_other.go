//go:build !linux

package vfs

// Sync is Sync of os.File: F_FULLFSYNC on darwin, where fsync does not reach the medium, and
// FlushFileBuffers on windows.
func (f osFile) Sync() error { return f.File.Sync() }

// Preallocate writes zeros.
func (f osFile) Preallocate(size int64) error { return zeroFill(f, size) }

// WriteVec writes buffer by buffer.
func (f osFile) WriteVec(bufs [][]byte, off int64) (int64, error) { return writeVec(f, bufs, off) }
