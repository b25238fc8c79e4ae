//go:build !linux

package main

import "os"

// datasync syncs f as the log does after each write, on systems without a cheaper sync of data
// alone.
func datasync(f *os.File) error { return f.Sync() }
