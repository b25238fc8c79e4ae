//go:build !linux

package vfs

// Sync calls Sync of os.File. It uses F_FULLFSYNC on darwin, where fsync does not reach the medium,
// and FlushFileBuffers on Windows.
func (f osFile) Sync() error { return f.File.Sync() }

// Preallocate writes zeros.
func (f osFile) Preallocate(size int64) error { return zeroFill(f, size) }

// WriteVec writes one buffer after another.
func (f osFile) WriteVec(bufs [][]byte, off int64) (int64, error) { return writeVec(f, bufs, off) }
