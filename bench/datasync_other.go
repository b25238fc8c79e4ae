//go:build !linux

package main

import "os"

// datasync is the sync that the log uses after each write, on systems without a cheaper sync of
// data alone.
func datasync(f *os.File) error { return f.Sync() }
