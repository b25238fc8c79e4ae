package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/input"
)

// flaky is a queue that remembers publishers, and dedup ids if it has a window. By a seeded choice
// it loses requests, loses answers, and refuses lines.
type flaky struct {
	surgetank.Broker // methods that publishing does not need are nil

	mu       sync.Mutex
	rng      *rand.Rand
	trouble  float64
	window   time.Duration
	stored   []string // "group|body" in order
	seen     map[string]time.Time
	numbers  map[string]bool // confirmed lines, by publisher and number
	known    map[string]bool // known publishers
	refuse   func(body string) error
	inFlight map[string]bool // groups in flight
	calls    int
}

func (f *flaky) Publish(_ context.Context, msgs []surgetank.Publishing) ([]surgetank.PublishResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	switch f.choose() {
	case 0:
		return nil, surgetank.Errorf(surgetank.CodeClosed, "connection refused")
	case 1:
		return nil, surgetank.Errorf(surgetank.CodeUncertain, "reset before the request was read")
	case 2: // a part of the batch is stored, and the answer is lost
		f.store(msgs[:f.rng.IntN(len(msgs)+1)])
		return nil, surgetank.Errorf(surgetank.CodeUncertain, "reset before the answer")
	case 3:
		return nil, &surgetank.Error{Code: surgetank.CodeBusy, Message: "too much at once", RetryAfter: time.Second}
	}
	return f.store(msgs), nil
}

func (f *flaky) choose() int {
	if f.rng.Float64() >= f.trouble {
		return -1
	}
	return f.rng.IntN(4)
}

func (f *flaky) store(msgs []surgetank.Publishing) []surgetank.PublishResult {
	out := make([]surgetank.PublishResult, len(msgs))
	for i, p := range msgs {
		m := p.Message
		if f.refuse != nil {
			if out[i].Err = f.refuse(string(m.Body)); out[i].Err != nil {
				continue
			}
		}
		number := fmt.Sprintf("%s %d", p.Publisher, p.Sequence)
		if p.Sequence != 1 && !f.known[p.Publisher] {
			out[i].Err = &surgetank.Error{Code: surgetank.CodeUncertain, Field: surgetank.FieldPublisher, Message: "unknown publisher"}
			continue
		}
		f.known[p.Publisher] = true
		if f.numbers[number] {
			out[i].Duplicate = true
			continue
		}
		f.numbers[number] = true
		if at, dup := f.seen[m.DedupID]; dup && f.window > 0 && time.Since(at) < f.window {
			out[i].Duplicate = true
			continue
		}
		f.seen[m.DedupID] = time.Now()
		f.stored = append(f.stored, m.Group+"|"+string(m.Body))
	}
	return out
}

func newFlaky(seed uint64, trouble float64) *flaky {
	return &flaky{rng: rand.New(rand.NewPCG(seed, 1)), trouble: trouble, window: time.Hour, seen: map[string]time.Time{},
		numbers: map[string]bool{}, known: map[string]bool{}}
}

func asLines(max int) input.Options { return input.Options{Format: input.Lines, Max: max} }

func groupOf(body []byte) string {
	g, _, _ := strings.Cut(string(body), " ")
	return g
}

// TestEveryLineOnceInOrder tests the package's promise in many runs with faults.
func TestEveryLineOnceInOrder(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			grouped := seed%2 == 0
			var in strings.Builder
			const lines = 3000
			for i := range lines {
				fmt.Fprintf(&in, "g%d %d\n", i%7, i)
			}
			b := newFlaky(seed, 0.5)
			if seed%4 < 2 {
				b.window = 0
			}
			o := Options{Queue: "q", Run: "r", Window: b.window, BatchLines: 50}
			if grouped {
				o.Group, o.SetGroup = groupOf, true
			}
			var stats Stats
			if err := Publish(t.Context(), b, NewFiles(nil, strings.NewReader(in.String()), asLines(1<<20)), o, &stats); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if r := stats.Snapshot(); r.Read != lines || r.Confirmed != lines {
				t.Fatalf("seed %d: %+v", seed, r)
			}
			if len(b.stored) != lines {
				t.Fatalf("seed %d: %d lines stored, want %d", seed, len(b.stored), lines)
			}
			last := map[string]int{}
			for _, s := range b.stored {
				group, body, _ := strings.Cut(s, "|")
				var g string
				var n int
				fmt.Sscanf(body, "%s %d", &g, &n)
				if grouped && g != group {
					t.Fatalf("seed %d: line %q was stored in group %q", seed, body, group)
				}
				if prev, ok := last[group]; ok && n <= prev {
					t.Fatalf("seed %d: group %q: line %d after %d", seed, group, n, prev)
				}
				last[group] = n
			}
		})
	}
}

func TestSameRunAgainStoresOnlyTheRest(t *testing.T) {
	b := newFlaky(1, 0)
	publish := func(input string) Report {
		var stats Stats
		o := Options{Queue: "q", Run: "nightly", Window: b.window}
		if err := Publish(t.Context(), b, NewFiles(nil, strings.NewReader(input), asLines(100)), o, &stats); err != nil {
			t.Fatal(err)
		}
		return stats.Snapshot()
	}
	publish("a\n\nb\n")
	r := publish("a\n\nb\nc") // the last line has no line end
	if want := (Report{Read: 3, Confirmed: 3, Duplicates: 2, Bytes: 3}); r != want {
		t.Errorf("second run: %+v, want %+v", r, want)
	}
	if !slices.Equal(b.stored, []string{"|a", "|b", "|c"}) {
		t.Errorf("stored %q", b.stored)
	}
}

func TestStopsWhereTruthEnds(t *testing.T) {
	lost := surgetank.Errorf(surgetank.CodeUncertain, "connection reset")
	forgot := &surgetank.Error{Code: surgetank.CodeUncertain, Field: surgetank.FieldPublisher, Message: "unknown publisher"}
	lostThen := func(n int, first, then error) func(string) error {
		return func(s string) error {
			if s == "a" {
				n--
			}
			if n > 0 {
				return first
			}
			return then
		}
	}
	for _, c := range []struct {
		name    string
		options Options
		refuse  func(string) error
		code    surgetank.Code
		says    string
	}{
		{"unknown outcome for ever", Options{}, func(string) error { return lost }, surgetank.CodeUncertain, "nothing was confirmed for 5m"},
		{"server forgot", Options{}, lostThen(5, lost, forgot), surgetank.CodeUncertain, "could double it"},
		{"server forgot, window over", Options{Window: time.Second}, lostThen(9, lost, forgot), surgetank.CodeUncertain, "nearly over"},
		{"a line that can never be stored", Options{Window: time.Minute}, func(s string) error {
			if s == "b" {
				return surgetank.Errorf(surgetank.CodeTooLarge, "too large")
			}
			return nil
		}, surgetank.CodeTooLarge, "line 2"},
		{"server never answers", Options{GiveUp: time.Minute}, func(string) error { return surgetank.Errorf(surgetank.CodeClosed, "refused") },
			surgetank.CodeClosed, "nothing was confirmed for 1m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFlaky(1, 0)
				b.refuse = c.refuse
				c.options.Queue, c.options.Run = "q", "r"
				var stats Stats
				err := Publish(t.Context(), b, NewFiles(nil, strings.NewReader("a\nb\nc\n"), asLines(100)), c.options, &stats)
				if surgetank.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v (code %s), want code %s with %q", err, surgetank.CodeOf(err), c.code, c.says)
				}
				var line *LineError
				if !errors.As(err, &line) {
					t.Errorf("the error does not name a line: %v", err)
				}
			})
		})
	}
}

// TestServerThatForgets: the server forgets publishers. Lines that were never sent before are sent
// with a new id. With Repeat, all other lines are sent again, too.
func TestServerThatForgets(t *testing.T) {
	for _, repeat := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newFlaky(3, 0)
			if b.window = 0; repeat {
				b.trouble = 0.7
			}
			b.refuse = func(string) error {
				if len(b.stored)%100 == 99 {
					clear(b.known)
				}
				return nil
			}
			var stats Stats
			err := Publish(t.Context(), b, NewFiles(nil, strings.NewReader(strings.Repeat("x\n", 500)), asLines(100)),
				Options{Queue: "q", Run: "r", Repeat: repeat, BatchLines: 10}, &stats)
			if r := stats.Snapshot(); err != nil || r.Confirmed != 500 || len(b.stored) < 500 || !repeat && len(b.stored) != 500 {
				t.Errorf("repeat %v: %v, %+v, %d stored", repeat, err, r, len(b.stored))
			}
		})
	}
}

// TestStopFinishesWhatIsInFlight: an interrupt ends the reading, even from an input that provides
// nothing.
func TestStopFinishesWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFlaky(1, 0)
		in, feed := io.Pipe()
		ctx, stop := context.WithCancel(t.Context())
		var stats Stats
		done := make(chan error)
		go func() {
			done <- Publish(ctx, b, NewFiles(nil, in, asLines(100)), Options{Queue: "q", Run: "r"}, &stats)
		}()
		io.WriteString(feed, "a\n")
		synctest.Wait()
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want the context's", err)
		}
		if r := stats.Snapshot(); r.Confirmed != 1 || len(b.stored) != 1 {
			t.Errorf("%+v, stored %q", r, b.stored)
		}
		feed.Close() // ends the abandoned reader
	})
}

func TestLongLinesAreRefusedUnread(t *testing.T) {
	src := NewFiles(nil, io.MultiReader(strings.NewReader("short\n"), endless{}), asLines(1000))
	if _, ok, err := src.Next(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	_, _, err := src.Next()
	if surgetank.CodeOf(err) != surgetank.CodeTooLarge || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestMemoryIsBounded: a stuck server stops the reading, however large the input is.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFlaky(1, 0)
		b.refuse = func(string) error { return surgetank.Errorf(surgetank.CodeClosed, "refused") }
		line := strings.Repeat("x", 1<<20) + "\n"
		var stats Stats
		err := Publish(t.Context(), b, NewFiles(nil, strings.NewReader(strings.Repeat(line, 200)), asLines(2<<20)), Options{Queue: "q", Run: "r"}, &stats)
		if err == nil {
			t.Fatal("a publish succeeded on a server that refuses all messages")
		}
		if got := stats.Snapshot().Read; got > maxBufferedBytes>>20+1 {
			t.Errorf("%d lines of 1 MiB were read while none was confirmed", got)
		}
	})
}

// TestSameRunAgainInEveryFormat: a run that was interrupted at any message continues there, in
// every format and with several files.
func TestSameRunAgainInEveryFormat(t *testing.T) {
	dir := t.TempDir()
	for format, files := range map[input.Format][2]string{
		input.Lines:  {"a\r\n\r\nb\r\n", "c\nd"},
		input.NDJSON: {"1\r\n\r\n2\r\n", "3\n4"},
		input.JSON:   {"[1, 2,\n 3]", "4 5"},
		input.CSV:    {"a,b\r\n1,\"x\r\ny\"\r\n2,z\r\n", "a,b\n3,w\n4,v"},
	} {
		var names []string
		for i, content := range files {
			names = append(names, filepath.Join(dir, fmt.Sprint(format, i)))
			if err := os.WriteFile(names[i], []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		names = append(names, names[1]) // a file named twice is published twice
		publish := func(b *flaky, format input.Format) error {
			o := Options{Queue: "q", Run: "r", Window: b.window, BatchLines: 1, Format: string(format)}
			return Publish(t.Context(), b, NewFiles(names, nil, input.Options{Format: format, Max: 100}), o, new(Stats))
		}
		whole := newFlaky(1, 0)
		if err := publish(whole, format); err != nil {
			t.Fatal(err)
		}
		for cut := range whole.stored {
			b, left := newFlaky(1, 0), cut
			b.refuse = func(string) error {
				if left--; left < 0 {
					return surgetank.Errorf(surgetank.CodeInvalid, "the run ends here")
				}
				return nil
			}
			if err := publish(b, format); err == nil || len(b.stored) != cut {
				t.Fatalf("%s: stored %q, %v", format, b.stored, err)
			}
			b.refuse = nil
			if err := publish(b, format); err != nil || !slices.Equal(b.stored, whole.stored) {
				t.Errorf("%s, cut at %d: stored %q, want %q; %v", format, cut, b.stored, whole.stored, err)
			}
		}
	}
}

// TestMistakesNameFileAndLine: an error names file and line, and standard input is read once.
func TestMistakesNameFileAndLine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f.csv")
	if err := os.WriteFile(name, []byte("a,b\n1,2\n3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		names []string
		stdin string
		f     input.Format
		says  string
	}{
		{[]string{name}, "", input.CSV, "f.csv:3: the row has 1 fields"},
		{[]string{"-"}, "a\rb", input.Lines, "line 1: a carriage return"},
		{[]string{"-", "-"}, "a", input.Lines, "named twice"},
		{[]string{filepath.Dir(name)}, "", input.Lines, filepath.Dir(name)},
		{[]string{name + "x"}, "", input.Lines, "f.csvx"},
	} {
		src := NewFiles(c.names, strings.NewReader(c.stdin), input.Options{Format: c.f, Max: 100})
		var err error
		for ok := true; ok && err == nil; {
			_, ok, err = src.Next()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.names, err, c.says)
		}
	}
}
