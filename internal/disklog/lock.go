package disklog

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

func lockPath(dir string) string { return filepath.Join(dir, lockName) }

// lockOwner is the line that a process refused by the lock is shown.
func lockOwner(now time.Time) string {
	return fmt.Sprintf("process %d (since %s)", os.Getpid(), now.UTC().Format(time.RFC3339))
}
