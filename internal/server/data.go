package server

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

// private makes the data directory, for its user only, and sees to it that its name survives a
// power failure: what is synced inside a directory is gone with the directory's own name.
func private(dir string) error {
	if err := (vfs.OS{}).Mkdir(dir); err != nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "cannot make the data directory: %w; choose another with --data", err)
	}
	return nil
}
