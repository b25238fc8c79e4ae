//go:build unix

package main

import "syscall"

// restrictFiles makes every file that this process creates readable by its user only: bodies are
// nobody else's business.
func restrictFiles() { syscall.Umask(0o077) }
