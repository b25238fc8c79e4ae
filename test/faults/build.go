//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/surgetank/surgetank/test/build"
)

// change is a text of a source file and its replacement in a special build.
type change struct{ file, old, new string }

// smallLog makes files of 1 MiB and a snapshot per MiB. So a run of seconds creates, trims and
// snapshots as many files as a run of days.
var smallLog = []change{
	{"internal/disklog/disklog.go", "DefaultSegmentBytes = 64 << 20", "DefaultSegmentBytes = 1 << 20"},
	{"internal/broker/broker.go", "def(&opts.SnapshotBytes, 128<<20)", "def(&opts.SnapshotBytes, 3<<19)"},
	{"internal/queue/machine.go", "l.ExtentBytes = 16 << 20", "l.ExtentBytes = 1 << 20"},
}

// canBuild returns what is missing for special builds.
func canBuild() error {
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("needs Go, to build a server of its own: %w", err)
	}
	_, err := moduleRoot(context.Background())
	return err
}

// moduleRoot returns the directory of this module's source.
func moduleRoot(ctx context.Context) (string, error) { return build.Root(ctx) }

// buildServer builds a server with changes into dir and returns its path. The source files stay
// unchanged.
func buildServer(ctx context.Context, dir, name, tags string, changes []change) (string, error) {
	return build.Server(ctx, dir, name, tags, shared(changes))
}

// overlay writes changed files into dir and returns the list that go build -overlay needs.
func overlay(root, dir, name string, changes []change) (string, error) {
	return build.Overlay(root, dir, name, shared(changes))
}

func shared(changes []change) []build.Change {
	list := make([]build.Change, len(changes))
	for i, c := range changes {
		list[i] = build.Change{File: c.file, Old: c.old, New: c.new}
	}
	return list
}

// variant returns a server of another build, built once per campaign.
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
