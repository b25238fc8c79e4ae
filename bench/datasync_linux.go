package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync is the sync that the log uses after each write.
func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
