//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "soak: it reads what a process holds from Linux's /proc; run it there")
	os.Exit(1)
}
