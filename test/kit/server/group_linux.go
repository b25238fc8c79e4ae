package server

import (
	"os"
	"syscall"
)

// ownGroup puts the process and its wrapper into a group of their own, which ends with this
// program.
var ownGroup = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) } // the group may already have ended
