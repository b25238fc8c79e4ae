//go:build !linux

package main

import "os"

// datasync syncs a file in the way that the log does after each write. This system has no cheaper
// sync of the data alone.
func datasync(f *os.File) error { return f.Sync() }
