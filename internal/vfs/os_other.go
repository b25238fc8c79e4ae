//go:build !linux

package vfs

// Sync is os.File's: F_FULLFSYNC on darwin, which reaches the medium where fsync does not, and
// FlushFileBuffers on windows.
func (f osFile) Sync() error { return f.File.Sync() }

// Preallocate writes zeros.
func (f osFile) Preallocate(size int64) error { return zeroFill(f, size) }

// WriteVec writes buffer by buffer.
func (f osFile) WriteVec(bufs [][]byte, off int64) (int64, error) { return writeVec(f, bufs, off) }
