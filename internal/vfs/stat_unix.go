//go:build unix && !linux

package vfs

// identify returns the identity of the file open as fd. If path is not empty, it returns the
// identity of the file at the path.
func identify(fd int, path string) (identity, error) { return identifyByStat(fd, path) }
