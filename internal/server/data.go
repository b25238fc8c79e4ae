package server

import (
	"os"

	"github.com/surgetank/surgetank"
)

// private makes the data directory, for its user only.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return surgetank.Errorf(surgetank.CodeInvalid, "cannot make the data directory: %w; choose another with --data", err)
	}
	return nil
}
