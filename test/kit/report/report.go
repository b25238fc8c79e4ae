// Package report writes the results of campaigns into dated files.
package report

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Append adds a text to a file of today, such as DIR/faults-2026-11-30.md. In name, DATE stands for
// the date. It makes the directory if necessary.
func Append(dir, name, text string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, strings.Replace(name, "DATE", time.Now().UTC().Format(time.DateOnly), 1))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Commit returns the tested commit. A + after its name means that the source has uncommitted
// changes.
func Commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(out))
	if changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(changed) > 0 {
		name += "+"
	}
	return name
}

// Now returns the time of day and the commit for a heading: "15:04 UTC, commit abc1234".
func Now() string {
	return fmt.Sprintf("%s UTC, commit %s", time.Now().UTC().Format("15:04"), Commit())
}
