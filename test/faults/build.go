//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// change is a text of a source file, and what a build of our own has in its place.
type change struct{ file, old, new string }

// smallLog makes files of 1 MiB and a snapshot every MiB, so that a run of seconds rolls, trims and snapshots as one of days does.
var smallLog = []change{
	{"internal/disklog/disklog.go", "DefaultSegmentBytes = 64 << 20", "DefaultSegmentBytes = 1 << 20"},
	{"internal/broker/broker.go", "def(&opts.SnapshotBytes, 128<<20)", "def(&opts.SnapshotBytes, 3<<19)"},
	{"internal/queue/machine.go", "l.ExtentBytes = 16 << 20", "l.ExtentBytes = 1 << 20"},
}

// canBuild says what is missing for builds of our own.
func canBuild() error {
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("needs Go, to build a server of its own: %w", err)
	}
	_, err := moduleRoot(context.Background())
	return err
}

// moduleRoot gives the directory of this module's source, which builds of our own need.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Dir}}", "github.com/surgetank/surgetank/cmd/surgetank").Output()
	if err != nil {
		return "", fmt.Errorf("finding the source of surgetank, to build it: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildServer builds a server from the source with changes, which are made for the compiler alone, into dir and gives its path.
func buildServer(ctx context.Context, dir, name, tags string, changes []change) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	argv := []string{"build", "-o", binary}
	if tags != "" {
		argv = append(argv, "-tags", tags)
	}
	if len(changes) > 0 {
		list, err := overlay(root, dir, name, changes)
		if err != nil {
			return "", err
		}
		argv = append(argv, "-overlay", list)
	}
	cmd := exec.CommandContext(ctx, "go", append(argv, "./cmd/surgetank")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released, and as a virtual machine without libraries can run it
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building surgetank: %w\n%s", err, out)
	}
	return binary, nil
}

// overlay writes changed files into dir and gives the list of them that go build -overlay wants.
func overlay(root, dir, name string, changes []change) (string, error) {
	texts := map[string]string{}
	for _, c := range changes {
		text, ok := texts[c.file]
		if !ok && c.old != "" {
			b, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if strings.Count(text, c.old) != 1 && c.old != "" {
			return "", fmt.Errorf("%s has this text %d times, not once; write the change anew: %s", c.file, strings.Count(text, c.old), c.old)
		}
		if c.old == "" { // the whole file
			texts[c.file] = c.new
			continue
		}
		texts[c.file] = strings.Replace(text, c.old, c.new, 1)
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

// variant gives a server of another build, made once in a campaign.
func (r *run) variant(ctx context.Context, name, tags string, changes []change) (string, error) {
	dir := filepath.Join(r.campaign.dir, "builds")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	return buildServer(ctx, dir, name, tags, changes)
}
