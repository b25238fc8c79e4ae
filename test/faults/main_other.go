//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "faults: this campaign injects its faults with means of Linux; run it there")
	os.Exit(1)
}
