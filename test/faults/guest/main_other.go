//go:build !linux

// Command guest is the first process of a Linux virtual machine; see main_linux.go.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "guest: this is the first process of a Linux machine, and of nothing else")
	os.Exit(1)
}
