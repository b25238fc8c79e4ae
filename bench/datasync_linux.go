package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync is what the log does after each write.
func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
