//go:build unix

package main

import "syscall"

// restrictFiles makes every file that this process creates readable by its user only, because files
// contain message bodies.
func restrictFiles() { syscall.Umask(0o077) }
