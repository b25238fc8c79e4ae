//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "targets: this campaign needs Linux")
	os.Exit(1)
}
