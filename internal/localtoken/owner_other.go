//go:build !unix

package localtoken

import (
	"os"
	"os/user"
	"strings"
)

// base is the user's own temporary directory.
var base = os.TempDir()

// uid returns an id of the user. On Windows it is a security identifier.
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

// private reports whether a path is a directory. Other users cannot enter it, because on these
// systems the temporary directory belongs to the user.
func private(dir string) bool {
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir()
}
