//go:build !linux

package main

import "os"

// datasync is what the log does after each write, where there is no cheaper sync of data alone.
func datasync(f *os.File) error { return f.Sync() }
