package formats

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

const never = 1 << 40 // more bytes than any golden directory has

// opening are the options for opening a data directory.
type opening struct {
	incarnation   uint64
	snapshotBytes int64 // bytes of log between snapshots; 0: no snapshots
	closing       bool  // Close takes a snapshot
}

// open opens a broker on a data directory.
func open(t *testing.T, dir string, o opening) *broker.Broker {
	t.Helper()
	fs := vfs.OS{}
	snaps, err := disklog.OpenSnapshots(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	opts := broker.Options{Snapshots: snaps, Seed: 1, Incarnation: o.incarnation, SnapshotBytes: never, QuickReplay: never,
		OpenLog: func(from commitlog.Offset, hooks broker.LogHooks) (commitlog.Replay, commitlog.Log, error) {
			return disklog.Open(disklog.Options{FS: fs, Dir: dir, From: from, SegmentBytes: disklog.MinSegmentBytes, CacheBytes: -1, MinFree: -1,
				OnFull: hooks.Full, OnDamage: hooks.Damage, Snapshots: snaps, ScrubEvery: -1})
		}}
	if o.snapshotBytes > 0 {
		opts.SnapshotBytes, opts.Limits.ExtentBytes = o.snapshotBytes, 4<<10
	}
	if o.closing {
		opts.QuickReplay = 1
	}
	b, err := broker.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // closes the broker if the test fails
	return b
}

// crash returns a copy of an open data directory, like the directory of a killed process.
func crash(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// newestSnapshot returns the name of the newest snapshot, or "" if there is none.
func newestSnapshot(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.snap"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// repaired damages the entry that contains a text, repairs the directory, and returns the path of
// the repaired copy.
func repaired(t *testing.T, dir, text string) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, []byte(text)); i >= 0 {
			b[i] ^= 1
			found = true
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatalf("%q is in no segment", text)
	}
	fs, to := vfs.OS{}, filepath.Join(t.TempDir(), "log")
	r, err := disklog.Repair(fs, dir, to)
	if err != nil {
		t.Fatal(err)
	}
	snaps, err := disklog.OpenSnapshots(fs, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Repair(broker.RepairOptions{Snapshots: snaps, Trimmed: r.Trimmed, Tail: r.Tail,
		OpenLog: func() (commitlog.Replay, commitlog.Log, error) {
			return disklog.OpenStepped(disklog.Options{FS: fs, Dir: to, SegmentBytes: disklog.MinSegmentBytes, CacheBytes: -1, MinFree: -1})
		}}); err != nil {
		t.Fatal(err)
	}
	return to
}

// entries calls f with every entry of a closed directory.
func entries(t *testing.T, dir string, f func(e disklog.EntryInfo) error) {
	t.Helper()
	if err := disklog.Inspect(vfs.OS{}, dir, true, f); err != nil {
		t.Fatal(err)
	}
}

// appendEntry adds an entry to a closed directory. The entry can have records that this build no
// longer writes. records are the bytes after the entry's header.
func appendEntry(t *testing.T, dir string, records []byte) {
	t.Helper()
	var last queue.EntryHeader
	entries(t, dir, func(e disklog.EntryInfo) (err error) {
		if !e.Lost {
			last, _, err = queue.ParseHeader(e.Data)
		}
		return err
	})
	last.Epoch++
	last.Number++
	replay, log, err := disklog.OpenStepped(disklog.Options{FS: vfs.OS{}, Dir: dir, SegmentBytes: disklog.MinSegmentBytes, CacheBytes: -1, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	log.Append(append(queue.AppendHeader(nil, last), records...), func(_ commitlog.Offset, err error) { failed = err })
	log.Pump()
	if err := errors.Join(failed, replay.Close(), log.Close()); err != nil {
		t.Fatal(err)
	}
}

// pack writes a directory's files into an archive. It leaves out the reserve file, which has no
// content and is created again on opening.
func pack(t *testing.T, dir, archive string) {
	t.Helper()
	names, err := vfs.OS{}.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(zip)
	for _, name := range names {
		if filepath.Ext(name) == ".spare" || name == "LOCK" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(b))})
		}
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close(), os.WriteFile(archive, out.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// unpack makes a directory from an archive.
func unpack(t *testing.T, archive string) string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// closeBroker closes a broker.
func closeBroker(t *testing.T, b *broker.Broker) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

var ctx = context.Background()
