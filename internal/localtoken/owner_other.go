//go:build !unix

package localtoken

import (
	"os"
	"os/user"
	"strings"
)

// base is the user's own temporary directory.
var base = os.TempDir()

// uid names the user; on Windows that is a security identifier.
func uid() string {
	u, err := user.Current()
	if err != nil {
		return "user"
	}
	return strings.Map(func(r rune) rune {
		if r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, u.Uid)
}

// private tells whether a path is a directory. The temporary directory is the user's own on such
// systems.
func private(dir string) bool {
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir()
}
