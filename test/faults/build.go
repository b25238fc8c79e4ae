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

// change is a replaced text of a source file in a special build.
type change = build.Change

// smallLog limits log files to 1 MiB and makes a snapshot per MiB. So a run of seconds creates,
// trims and snapshots as many files as a run of days.
var smallLog = []change{
	{File: "internal/disklog/disklog.go", Old: "DefaultSegmentBytes = 64 << 20", New: "DefaultSegmentBytes = 1 << 20"},
	{File: "internal/broker/broker.go", Old: "def(&o.SnapshotBytes, 128<<20)", New: "def(&o.SnapshotBytes, 3<<19)"},
	{File: "internal/queue/machine.go", Old: "l.ExtentBytes = 16 << 20", New: "l.ExtentBytes = 1 << 20"},
}

// canBuild returns an error that names the program that special builds need and this machine lacks.
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
func buildServer(ctx context.Context, dir, name string, changes []change) (string, error) {
	return build.Server(ctx, dir, name, "", changes)
}

// variant returns a server of another build, built once per campaign.
func (r *run) variant(ctx context.Context, name string, changes []change) (string, error) {
	dir := filepath.Join(r.campaign.dir, "builds")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	return buildServer(ctx, dir, name, changes)
}
