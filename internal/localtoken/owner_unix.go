//go:build unix

package localtoken

import (
	"os"
	"strconv"
	"syscall"
)

// base is where all users' directories are. It is the same for every program of the machine, unlike
// TMPDIR.
var base = "/tmp"

func uid() string { return strconv.Itoa(os.Geteuid()) }

// private tells whether a path is a directory that belongs to this user and that nobody else may
// enter.
func private(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
