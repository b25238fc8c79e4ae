// Package build makes servers and tests from this module's source with changes that only the
// compiler sees. It is used for builds with a planted defect, and for builds with other constants.
// It needs Go and the source.
package build

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Change replaces a text of a source file, which must occur exactly once. If Old is empty, New is
// the whole file.
type Change struct{ File, Old, New string }

// Root returns the directory of this module's source.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Dir}}", "github.com/surgetank/surgetank/cmd/surgetank").Output()
	if err != nil {
		return "", fmt.Errorf("finding the source of surgetank, to build it: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

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
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as released, and so that a virtual machine without libraries can run it
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building surgetank: %w\n%s", err, out)
	}
	return binary, nil
}

// Overlay writes changed files into dir and returns the list that go build -overlay needs.
func Overlay(root, dir, name string, changes []Change) (string, error) {
	texts := map[string]string{}
	for _, c := range changes {
		text, ok := texts[c.File]
		if !ok && c.Old != "" {
			b, err := os.ReadFile(filepath.Join(root, c.File))
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if strings.Count(text, c.Old) != 1 && c.Old != "" {
			return "", fmt.Errorf("%s has this text %d times, not once; write the change anew: %s", c.File, strings.Count(text, c.Old), c.Old)
		}
		if c.Old == "" { // the whole file
			texts[c.File] = c.New
			continue
		}
		texts[c.File] = strings.Replace(text, c.Old, c.New, 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		changed := filepath.Join(dir, name+"-"+strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, file)] = changed
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, name+"-overlay.json")
	return list, os.WriteFile(list, b, 0o600)
}
