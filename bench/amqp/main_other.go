//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench/amqp: this program reads CPU time and memory of whole process trees from /proc; run it on Linux")
	os.Exit(1)
}
