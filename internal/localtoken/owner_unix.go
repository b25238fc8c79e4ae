//go:build unix

package localtoken

import (
	"os"
	"strconv"
	"syscall"
)

// base contains the directories of all users. Unlike TMPDIR, base is the same for every program on
// the computer.
var base = "/tmp"

func uid() string { return strconv.Itoa(os.Geteuid()) }

// private reports whether a path is a directory of this user that no other user may enter.
func private(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
