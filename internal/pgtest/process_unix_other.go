//go:build unix && !linux

package pgtest

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}

// childrenOf cannot list processes on this system; a killed server's processes end by themselves.
func childrenOf(int) []int { return nil }
