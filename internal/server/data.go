package server

import (
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
)

// private creates the data directory, for its user only, and makes its name durable. Without that,
// a power failure could remove the name and thus the synced files in the directory.
func private(dir string) error {
	if err := (vfs.OS{}).Mkdir(dir); err != nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "cannot make the data directory: %w; choose another with --data", err)
	}
	return nil
}
