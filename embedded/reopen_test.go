package embedded

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/vfs"
	"github.com/surgetank/surgetank/worker"
)

// within returns a context that fails a test which waits for ever.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func declare(t *testing.T, b *Broker) {
	t.Helper()
	if _, _, err := b.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{}, surgetank.DeclareIfAbsent); err != nil {
		t.Fatal(err)
	}
}

func message(body string) []surgetank.Publishing {
	return []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(body)}}}
}

// await waits until the broker's state is as wanted.
func await(t *testing.T, b *Broker, ok func(Health) bool) Health {
	t.Helper()
	ctx := within(t)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if h := b.Health(); ok(h) {
			return h
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%+v", b.Health())
		}
	}
}

// A failed sync or write, once or for some time: the broker opens again by itself, and everything
// that was confirmed is there.
func TestReopenAfterErrors(t *testing.T) {
	for name, fault := range map[string]vfs.Fault{
		"a sync fails once":        {Ops: vfs.OpSync, N: 1, Err: syscall.EIO},
		"a write fails once":       {Ops: vfs.OpWrite, N: 1, Err: syscall.EIO, Short: true},
		"all changes fail":         {Ops: vfs.OpChange, N: 1, Forever: true, Err: syscall.EIO},
		"a sync finds a full disk": {Ops: vfs.OpSync, N: 1, Forever: true, Err: syscall.ENOSPC},
		"read-only":                {Ops: vfs.OpChange | vfs.OpLock, N: 1, Forever: true, Err: syscall.EROFS},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewInject(vfs.OS{})
			b, err := Open(t.TempDir(), Options{Shards: 1, fs: fs, ScrubEvery: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			declare(t, b)
			if _, err := b.Publish(within(t), message("confirmed")); err != nil {
				t.Fatal(err)
			}
			fs.SetFault(fault)
			res, err := b.Publish(within(t), message("uncertain"))
			if err == nil && fault.Ops != vfs.OpWrite { // a write can also be one of a mark
				t.Fatal("the publish was confirmed:", res)
			}
			if fault.Forever {
				h := await(t, b, func(h Health) bool { return h.State == StateOpening && !h.NextTry.IsZero() })
				if h.Err == nil || h.LastErr == nil {
					t.Errorf("%+v", h)
				}
				fs.SetFault(vfs.Fault{})
			}
			if _, err := b.Publish(within(t), message("after")); err != nil {
				t.Fatal(err)
			}
			if h := b.Health(); h.State != StateServing || h.Err != nil || h.Reopenings == 0 || h.LastErr == nil {
				t.Errorf("%+v", h)
			}
			list, err := b.Receive(within(t), "q", surgetank.ReceiveOptions{Max: 10})
			if err != nil || len(list) < 2 || string(list[0].Body) != "confirmed" || string(list[len(list)-1].Body) != "after" {
				t.Error(len(list), err)
			}
		})
	}
}

// The mount of the directory is lost, and below it are no files, or the files of another log. The
// broker changes none of them, and continues when its own files are back. A worker continues, too.
func TestReopenAfterALostMount(t *testing.T) {
	for _, below := range []string{"nothing", "an empty directory", "another log"} {
		t.Run(below, func(t *testing.T) {
			base := t.TempDir()
			dir, away := filepath.Join(base, "data"), filepath.Join(base, "away")
			other := filepath.Join(base, "other")
			o, err := Open(other, Options{Shards: 1})
			if err != nil {
				t.Fatal(err)
			}
			declare(t, o)
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := Open(dir, Options{Shards: 1, ReopenWait: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			declare(t, b)
			handled := make(chan string, 10)
			ctx, stop := context.WithCancel(within(t))
			worked := make(chan error, 1)
			go func() {
				worked <- worker.Run(ctx, b, "q", func(_ context.Context, d *surgetank.Delivery) error {
					handled <- string(d.Body)
					return nil
				}, worker.Options{})
			}()
			if _, err := b.Publish(within(t), message("first")); err != nil {
				t.Fatal(err)
			}
			if got := <-handled; got != "first" {
				t.Fatal(got)
			}
			if _, err := b.Publish(within(t), message("second")); err != nil {
				t.Fatal(err)
			}
			<-handled

			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(os.Rename(dir, away))
			switch below {
			case "an empty directory":
				must(os.Mkdir(dir, 0o700))
			case "another log":
				must(os.CopyFS(dir, os.DirFS(other)))
			}
			// The log can notice the loss at this publish, or at an earlier write of an ack.
			short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if _, err := b.Publish(short, message("uncertain")); !surgetank.Passing(err) {
				t.Fatal("a publish without its directory:", err)
			}
			cancel()
			h := await(t, b, func(h Health) bool { return h.State == StateOpening && !h.NextTry.IsZero() })
			if surgetank.CodeOf(h.Err) != surgetank.CodeUnavailable {
				t.Error(h.Err)
			}
			switch below {
			case "nothing":
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Error("the directory was made again:", err)
				}
			case "an empty directory":
				if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
					t.Error("files were made:", list, err)
				}
			case "another log":
				if err := sameFiles(other, dir); err != nil {
					t.Error(err)
				}
			}
			must(os.RemoveAll(dir))
			must(os.Rename(away, dir))
			if _, err := b.Publish(within(t), message("after")); err != nil {
				t.Fatal(err)
			}
			for got := range handled {
				if got == "after" {
					break
				}
				if got != "uncertain" && got != "second" {
					t.Error("handled again:", got)
				}
			}
			stop()
			if err := <-worked; err != nil {
				t.Error(err)
			}
		})
	}
}

// sameFiles returns an error if the files of two directories differ.
func sameFiles(a, b string) error {
	return filepath.WalkDir(a, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		x, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if y, err := os.ReadFile(filepath.Join(b, rel)); err != nil || string(x) != string(y) {
			return errors.Join(errors.New(rel+" differs"), err)
		}
		return nil
	})
}

// If the directory is replaced by an older copy of itself, or is damaged, the failure is final.
func TestReopenIsFinal(t *testing.T) {
	for _, name := range []string{"an older copy", "damage", "never"} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, copied := filepath.Join(base, "data"), filepath.Join(base, "copy")
			opts := Options{Shards: 1}
			if name == "never" {
				opts.ReopenFor = -1
			}
			open := func() *Broker {
				b, err := Open(dir, opts)
				if err != nil {
					t.Fatal(err)
				}
				declare(t, b)
				return b
			}
			if err := open().Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			b := open()
			defer b.Close()
			if name == "damage" {
				if err := os.RemoveAll(copied); err != nil {
					t.Fatal(err)
				}
				if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(copied, "log", "0000000000000001.seg")); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.RemoveAll(dir), os.Rename(copied, dir)); err != nil {
				t.Fatal(err)
			}
			_, _ = b.Publish(within(t), message("uncertain"))
			select {
			case <-b.Done():
			case <-within(t).Done():
				t.Fatalf("%+v", b.Health())
			}
			h := b.Health()
			if h.State != StateFailed || h.Err == nil {
				t.Errorf("%+v", h)
			}
			t.Log(h.Err)
			if _, err := b.Publish(within(t), message("too late")); surgetank.CodeOf(err) != surgetank.CodeClosed {
				t.Error(err)
			}
		})
	}
}
