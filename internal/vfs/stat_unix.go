//go:build unix && !linux

package vfs

// identify looks at the file open as fd, or, with a path, at the file that the path leads to.
func identify(fd int, path string) (identity, error) { return identifyByStat(fd, path) }
