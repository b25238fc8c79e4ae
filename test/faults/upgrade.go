//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/server"
)

// nextFormat makes a server of a later format.
var nextFormat = []change{{File: "internal/disklog/format.go", Old: "formatVersion = 1", New: "formatVersion = 2"}}

// canUpgrade returns an error if this machine cannot build other versions.
func canUpgrade() error {
	if err := canBuild(); err != nil {
		return err
	}
	root, err := moduleRoot(context.Background())
	if err == nil {
		_, err = previousVersion(context.Background(), root)
	}
	return err
}

// previousVersion returns the version before this one: the newest tag that is not this commit. If
// there is no tag, the previous version is the tenth commit before this one (a merge counts as one
// commit), if that commit has a server.
func previousVersion(ctx context.Context, root string) (string, error) {
	for _, argv := range [][]string{{"describe", "--tags", "--abbrev=0", "HEAD~1"}, {"rev-parse", "--verify", "--short", "HEAD~10"}} {
		cmd := exec.CommandContext(ctx, "git", argv...)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			continue
		}
		version := strings.TrimSpace(string(out))
		look := exec.CommandContext(ctx, "git", "cat-file", "-e", version+":cmd/surgetank/serve.go")
		look.Dir = root
		if look.Run() == nil {
			return version, nil
		}
	}
	return "", errors.New("needs the project's history in git, to build the version before")
}

// previousServer builds the previous version.
func (r *run) previousServer(ctx context.Context) (binary, version string, err error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", "", err
	}
	if version, err = previousVersion(ctx, root); err != nil {
		return "", "", err
	}
	source := filepath.Join(r.dir, "previous-source")
	if err := os.Mkdir(source, 0o700); err != nil {
		return "", "", err
	}
	archive := exec.CommandContext(ctx, "git", "archive", version)
	archive.Dir = root
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", source)
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return "", "", err
	}
	if err := errors.Join(unpack.Start(), archive.Run(), unpack.Wait()); err != nil {
		return "", "", fmt.Errorf("unpacking %s: %w", version, err)
	}
	binary = filepath.Join(r.dir, "previous")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/surgetank")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("building %s: %w\n%s", version, err, out)
	}
	return binary, version, os.RemoveAll(source)
}

// otherVersions changes the server's version while the data stays. This version must read data of
// the previous version, after a kill or an orderly stop. If the format is the same, the previous
// version must read data of this version. Each server must refuse a directory of another format,
// say which version it can read, and not change the directory.
func otherVersions(ctx context.Context, r *run) error {
	this := r.server.Binary
	previous, version, err := r.previousServer(ctx)
	if err != nil {
		return err
	}
	later, err := r.variant(ctx, "later", nextFormat)
	if err != nil {
		return err
	}
	r.note("the version before is %s", version)
	r.server.Binary = previous
	if err := r.begin(ctx, loadOptions{size: 6000, amqp: 2}); err != nil {
		return fmt.Errorf("starting %s: %w", version, err)
	}
	for k := range r.times(4, 40) {
		if !r.progress(ctx, 60, 10*time.Second) {
			r.fail("progress", "nothing was confirmed for 10 s after change %d of the version", k)
		}
		if k%2 == 0 {
			r.server.Kill()
		} else {
			r.server.Signal(syscall.SIGTERM)
			if code, err := r.server.Wait(ctx); err != nil || code != 0 {
				return fmt.Errorf("stopping: exit code %d: %w", code, err)
			}
		}
		if err := r.refuses(ctx, later, r.server.Data); err != nil {
			return err
		}
		r.server.Binary = []string{this, previous}[k%2]
		r.inject("another version")
		if err := r.server.Start(ctx); err != nil {
			return fmt.Errorf("starting on the other version's data: %w: %s", err, r.server.Tail(500))
		}
	}
	if err := r.laterDirectory(ctx, this, later); err != nil {
		return err
	}
	return r.end(ctx)
}

// laterDirectory makes a directory with a server of a later format. This version must refuse it.
func (r *run) laterDirectory(ctx context.Context, this, later string) error {
	sv := &server.Server{Binary: later, Data: filepath.Join(r.dir, "later-data"), Log: r.server.Log}
	if err := sv.Start(ctx); err != nil {
		return fmt.Errorf("starting the server of a later format: %w", err)
	}
	sv.Kill()
	return r.refuses(ctx, this, sv.Data)
}

// refuses starts a server on a directory of another format. The server must exit, say why, and
// change nothing.
func (r *run) refuses(ctx context.Context, binary, data string) error {
	before, err := contents(data)
	if err != nil {
		return err
	}
	sv := &server.Server{Binary: binary, Data: data, Log: filepath.Join(r.dir, fmt.Sprintf("refused-%d.log", r.injected))}
	defer sv.Kill()
	r.inject("another format")
	switch err := sv.Start(ctx); {
	case err == nil:
		r.fail("format", "a server of another format serves the directory")
		return nil
	case !errors.Is(err, server.ErrNotReady):
		return err
	case sv.Code() <= 0:
		r.fail("format", "a server of another format left with exit code %d", sv.Code())
	case !strings.Contains(sv.Tail(4000), "version"):
		r.fail("format", "a server of another format does not say which version it wants: %s", oneLine(sv.Tail(400)))
	}
	after, err := contents(data)
	if err != nil {
		return err
	}
	for name, b := range before {
		if c, ok := after[name]; !ok || !bytes.Equal(b, c) {
			r.fail("format", "a server of another format changed %s, which it could not read", name)
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			r.fail("format", "a server of another format left %s behind in a directory that it could not read", name)
		}
	}
	return nil
}

// contents reads every file in a directory. For the lock file, which names its last user, it reads
// only the name.
func contents(dir string) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var b []byte
		if d.Name() != "LOCK" {
			b, err = os.ReadFile(path)
		}
		all[path] = b
		return err
	})
	return all, err
}
