//go:build !unix

package main

// restrictFiles does nothing on this system: files have the access rights of their directory.
func restrictFiles() {}
