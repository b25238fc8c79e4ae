package server

import (
	"bytes"
	"context"
	"github.com/surgetank/surgetank/internal/shards/shardstest"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
)

// lineWatcher is a log writer that signals when a line contains a text.
type lineWatcher struct {
	mu   sync.Mutex
	all  bytes.Buffer
	text string
	seen chan struct{}
}

// Write writes one line.
func (w *lineWatcher) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Contains(line, []byte(w.text)) {
		select {
		case w.seen <- struct{}{}:
		default:
		}
	}
	return w.all.Write(line)
}

func (w *lineWatcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// TestRotUnderARunningServer: a bit flips in a file of a running server. The log and the metrics
// name the file, and a peek names the message, before a consumer reads it.
func TestRotUnderARunningServer(t *testing.T) {
	shardstest.One(t, "the test damages the file of one log")
	dir := filepath.Join(t.TempDir(), "data")
	cfg := local(dir)
	cfg.ScrubEvery, cfg.ScrubRate = time.Second, 1<<30
	log := &lineWatcher{text: "looked for messages in damaged entries", seen: make(chan struct{}, 1)}
	ctx := t.Context()
	first, err := Start(context.WithoutCancel(ctx), Options{Config: cfg, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.broker.DeclareQueue(ctx, "q", surgetank.QueueConfig{}, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"a message that rots", "a message that does not"} {
		if res, err := first.broker.Publish(ctx, []surgetank.Publishing{{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte(body)}}}); err != nil || res[0].Err != nil {
			t.Fatal(res, err)
		}
	}
	stop(t, first)
	s := start(t, Options{Config: cfg, Logger: slog.New(slog.NewTextHandler(log, nil))}) // the new server has no message in memory
	file := rotFile(t, dir, "a message that rots")
	select {
	case <-log.seen:
	case <-t.Context().Done():
	}
	lines := log.String()
	for _, want := range []string{"the scrub found damage on the disk", file, "surgetank verify", "would be refused", "damaged=1"} {
		if !strings.Contains(lines, want) {
			t.Errorf("the log lacks %q:\n%s", want, lines)
		}
	}
	if n := strings.Count(lines, "the scrub found damage"); n != 1 {
		t.Errorf("the damage was logged %d times", n)
	}
	shown, err := s.broker.Peek(ctx, "q", surgetank.PeekOptions{State: surgetank.StateDamaged})
	if err != nil || len(shown) != 1 || shown[0].ID.Seq != 1 || !strings.Contains(shown[0].Damage, file) {
		t.Errorf("a peek shows %+v, %v", shown, err)
	}
	if code, text := request(t, "GET", "http://"+s.Addresses().HTTP+"/metrics", ""); code != 200 ||
		!strings.Contains(text, "\nsurgetank_scrub_found_total{kind=\"entry\"} 1\n") || !strings.Contains(text, "\nsurgetank_scrub_damaged{kind=\"entry\"} 1\n") ||
		!strings.Contains(text, "\nsurgetank_scrub_damaged{kind=\"snapshot\"} 0\n") || !strings.Contains(text, "\nsurgetank_scrub_bytes_total ") ||
		!strings.Contains(text, "\nsurgetank_scrub_last_pass_timestamp_seconds ") {
		t.Errorf("metrics: %d %s", code, text)
	}
	if code, text := request(t, "GET", "http://"+s.Addresses().HTTP+"/readyz", ""); code != 200 {
		t.Errorf("/readyz says that a server with a damaged message is not ready: %d %s", code, text)
	}
}

// rotFile flips a bit of a text in the only file of a directory's log that contains the text.
func rotFile(t *testing.T, dir, text string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(b, []byte(text))
		if i < 0 {
			continue
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{b[i] ^ 1}, int64(i)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return filepath.Base(name)
	}
	t.Fatalf("no file has %q", text)
	return ""
}
