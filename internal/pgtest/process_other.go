//go:build !unix

package pgtest

import "os/exec"

func giveAway(string) error    { return nil }
func unprivileged(*exec.Cmd)   {}
func childrenOf(pid int) []int { return nil }
