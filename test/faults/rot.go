//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/kit/client"
	"github.com/surgetank/surgetank/test/kit/server"
)

// rotUnderServer flips a bit in a file that a running server is not reading. The server's scrub,
// set to every second, must name the file before any consumer starts. A damaged snapshot must be
// moved away and replaced, so that after a kill and a restart the whole state is there. Then
// consumers start, and no wrong byte may be delivered.
func rotUnderServer(ctx context.Context, r *run) error {
	s, err := r.makeSample(ctx, false)
	if err != nil {
		return err
	}
	r.drained, r.beyond = true, true
	config := filepath.Join(r.dir, "scrub.yaml")
	if err := os.WriteFile(config, []byte("server: {scrub: {every: 1s, rate: 1GiB}}\n"), 0o600); err != nil {
		return err
	}
	byKind := map[string][]string{}
	for _, f := range s.files {
		b, err := os.ReadFile(filepath.Join(s.dir, f))
		if err != nil {
			return err
		}
		if from, to := meaningful(f, b); from < to {
			byKind[filepath.Ext(f)] = append(byKind[filepath.Ext(f)], f)
		}
	}
	kinds := []string{".seg", ".snap"}
	ends := map[string]int{}
	for n := range r.times(len(kinds), 20*len(kinds)) {
		files := byKind[kinds[n%len(kinds)]]
		if len(files) == 0 {
			return fmt.Errorf("the sample has no %s files", kinds[n%len(kinds)])
		}
		file := files[r.rng.IntN(len(files))]
		what := file + " a bit flipped while the server runs"
		r.inject(what)
		r.trialArgs = []string{"--config", config}
		r.trialStarted = func(ctx context.Context, sv *server.Server) (problem string, err error) {
			return r.rot(ctx, sv, filepath.Join(sv.Data, file))
		}
		end, bad, err := r.trial(ctx, s, n, what, file, func(string) error { return nil })
		if err != nil {
			return err
		}
		ends[end]++
		r.wrong = append(r.wrong, bad...)
	}
	r.note("%d trials were reported by name when a consumer came, %d were harmless then; the scrub had named each", ends["reported"], ends["harmless"])
	return nil
}

// rot flips the bit and waits for the server to report it.
func (r *run) rot(ctx context.Context, sv *server.Server, path string) (problem string, err error) {
	if err := r.flipOne(path); err != nil {
		return "", err
	}
	named := func() bool {
		return strings.Contains(sv.Tail(16000), "the scrub found damage on the disk") && strings.Contains(sv.Tail(16000), filepath.Base(path))
	}
	if !r.until(ctx, 20*time.Second, named) {
		return "the scrub did not name the file within 20 s", nil
	}
	c := client.NewHTTP(sv.URL, 5*time.Second)
	defer c.Close()
	if m, err := c.Metrics(ctx); err != nil || m["surgetank_scrub_found_total"] == 0 {
		return fmt.Sprintf("the metrics do not know of it: %v", err), nil
	}
	if filepath.Ext(path) != ".snap" {
		return "", nil
	}
	aside := func() bool {
		_, err := os.Stat(path + ".damaged")
		return err == nil
	}
	others, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.snap"))
	if err != nil {
		return "", err
	}
	slices.Sort(others)
	if path != others[len(others)-1] {
		return "", nil // an older snapshot is not needed; the next snapshot replaces it
	}
	if !r.until(ctx, 20*time.Second, aside) {
		return "the damaged snapshot was not replaced within 20 s", nil
	}
	sv.Signal(syscall.SIGKILL)
	if _, err := sv.Wait(ctx); err != nil {
		return "", err
	}
	sv.Args = nil // without the scrub, only reading finds damage
	if err := sv.Start(ctx); errors.Is(err, server.ErrNotReady) {
		return "a start after the snapshot was replaced is refused", nil
	} else if err != nil {
		return "", err
	}
	return "", nil
}

// meaningful returns the part of a file whose bytes matter. For a segment it excludes the header's
// unused part and the end, where data may not be durable. The part is empty if a segment has no
// entries yet.
func meaningful(name string, b []byte) (from, to int) {
	to = len(bytes.TrimRight(b, "\x00"))
	if filepath.Ext(name) == ".seg" {
		return 4096, to - to/10
	}
	return 0, to
}

// flipOne flips a bit of a byte that is not 0.
func (r *run) flipOne(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	from, to := meaningful(path, b)
	if from >= to {
		return fmt.Errorf("%s has no bytes to damage", path)
	}
	at := from + r.rng.IntN(to-from)
	for b[at] == 0 {
		if at++; at == to {
			at = from
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b[at] ^ 1<<r.rng.IntN(8)}, int64(at))
	return errors.Join(err, f.Close())
}
