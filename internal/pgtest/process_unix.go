//go:build unix

package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// PostgreSQL refuses to run as root, so root runs it as one of these users.
var others = []string{"postgres", "nobody"}

func other() (uid, gid int, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	for _, name := range others {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil {
			return uid, gid, true
		}
	}
	return 0, 0, false
}

// giveAway makes the user that runs the server the owner of a directory.
func giveAway(dir string) error {
	if uid, gid, ok := other(); ok {
		return os.Chown(dir, uid, gid)
	}
	if os.Getuid() == 0 {
		return fmt.Errorf("PostgreSQL does not run as root, and there is no user %s", strings.Join(others, " or "))
	}
	return nil
}

// unprivileged makes a command run as the user of the server.
func unprivileged(cmd *exec.Cmd) {
	attr := &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal reaches only the test, which ends the server
	if uid, gid, ok := other(); ok {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	dieWithParent(attr)
	cmd.SysProcAttr = attr
}
