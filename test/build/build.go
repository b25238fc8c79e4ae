// Package build builds servers from this module's source with changes that only the compiler sees.
// Tests use it for builds with a planted defect, and for builds with other constants. It needs Go
// and the source.
package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/surgetank/surgetank/internal/overlay"
)

// Change is a change of a source file.
type Change = overlay.Edit

// Root returns the directory of this module's source.
func Root(ctx context.Context) (string, error) { return overlay.Root(ctx) }

// Server builds a server with changes into dir and returns its path. The source files stay
// unchanged.
func Server(ctx context.Context, dir, name, tags string, changes []Change) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	argv := []string{"build", "-o", binary}
	if tags != "" {
		argv = append(argv, "-tags", tags)
	}
	if len(changes) > 0 {
		list, err := Overlay(root, dir, name, changes)
		if err != nil {
			return "", err
		}
		argv = append(argv, "-overlay", list)
	}
	cmd := exec.CommandContext(ctx, "go", append(argv, "./cmd/surgetank")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as in a release; a virtual machine without libraries can run the result
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building surgetank: %w\n%s", err, out)
	}
	return binary, nil
}

// Overlay writes changed files into dir and returns the list that go build -overlay needs.
func Overlay(root, dir, name string, changes []Change) (string, error) {
	return overlay.Write(root, dir, name, changes)
}
