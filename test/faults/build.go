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

// change is a text of a source file, and what a build of our own has in its place.
type change struct{ file, old, new string }

// smallLog makes files of 1 MiB and a snapshot every MiB, so that a run of seconds rolls, trims and
// snapshots as one of days does.
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
func moduleRoot(ctx context.Context) (string, error) { return build.Root(ctx) }

// buildServer builds a server from the source with changes, which are made for the compiler alone,
// into dir and gives its path.
func buildServer(ctx context.Context, dir, name, tags string, changes []change) (string, error) {
	return build.Server(ctx, dir, name, tags, shared(changes))
}

// overlay writes changed files into dir and gives the list of them that go build -overlay wants.
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
