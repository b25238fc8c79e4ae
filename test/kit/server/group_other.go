//go:build !linux

package server

import (
	"os"
	"syscall"
)

var ownGroup *syscall.SysProcAttr

func killGroup(*os.Process) {} // only faults that need Linux have wrappers
