//go:build unix && !linux

package pgtest

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}

// childrenOf cannot list them here; a killed server's processes notice by themselves.
func childrenOf(int) []int { return nil }
