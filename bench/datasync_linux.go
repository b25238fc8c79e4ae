package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync syncs a file in the way that the log does after each write.
func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
