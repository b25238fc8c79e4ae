package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/input"
)

// Line is one message of the input: a line, or one message in another format.
type Line struct {
	// N is the number of the message over all files. It is the same at each reading. Lines are
	// counted from 1, including empty ones; in JSON, values are counted.
	N    int64
	Body []byte
	File string // empty: standard input
	At   int64  // the line in the file where the message begins

	group string
}

// Where returns the location of the line for people.
func (l Line) Where() string {
	if l.File == "" {
		return fmt.Sprintf("line %d", l.At)
	}
	return fmt.Sprintf("%s:%d", l.File, l.At)
}

// Source returns lines one after the other. ok is false after the last.
type Source interface {
	Next() (l Line, ok bool, err error)
}

// Files reads files one after the other. "-" is standard input, which may be named once. Package
// input defines how a file is divided into messages. A message longer than the options allow is an
// error and is not read into memory.
type Files struct {
	names []string
	stdin io.Reader
	opts  input.Options

	base  int64 // how many numbers the earlier files used
	name  string
	in    *input.Reader
	close func() error
}

// NewFiles makes a source. Without names it reads standard input.
func NewFiles(names []string, stdin io.Reader, o input.Options) *Files {
	if len(names) == 0 {
		names = []string{"-"}
	}
	return &Files{names: names, stdin: stdin, opts: o}
}

// Next returns the next message.
func (f *Files) Next() (Line, bool, error) {
	for {
		if f.in == nil {
			if len(f.names) == 0 {
				return Line{}, false, nil
			}
			if err := f.open(f.names[0]); err != nil {
				return Line{}, false, err
			}
			f.names = f.names[1:]
		}
		m, err := f.in.Next()
		switch {
		case errors.Is(err, io.EOF):
			if err := f.close(); err != nil {
				return Line{}, false, fmt.Errorf("closing the input: %w", err)
			}
			f.base += f.in.Count()
			f.in = nil
			continue
		case err != nil:
			return Line{}, false, f.named(err)
		}
		return Line{N: f.base + m.N, Body: m.Body, File: f.name, At: m.Line}, true, nil
	}
}

func (f *Files) open(name string) error {
	f.name = ""
	in := f.stdin
	f.close = func() error { return nil }
	switch {
	case name != "-":
		file, err := os.Open(name)
		if err != nil {
			return surgetank.Errorf(surgetank.CodeNotFound, "cannot read the input: %w", err)
		}
		in, f.close, f.name = file, file.Close, name
	case slices.Contains(f.names[1:], "-"):
		return surgetank.Errorf(surgetank.CodeInvalid, "standard input is named twice; it can be read once")
	}
	f.in = input.NewReader(in, f.opts)
	return nil
}

// named puts the file and the line before an error's text.
func (f *Files) named(err error) error {
	var e *input.LineError
	if !errors.As(err, &e) {
		if f.name != "" {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		return err
	}
	named := *e.Err
	named.Message = Line{File: f.name, At: e.Line}.Where() + ": " + e.Err.Message
	return &named
}

// budget limits the bytes that were read and are not yet confirmed. A line larger than the budget
// is sent when no other line is in memory.
type budget struct {
	mu   sync.Mutex
	left int
	full int
	wake chan struct{}
}

func newBudget(n int) *budget { return &budget{left: n, full: n, wake: make(chan struct{}, 1)} }

// One goroutine calls take.
func (b *budget) take(ctx context.Context, n int) bool {
	for {
		b.mu.Lock()
		if b.left >= n || b.left == b.full {
			b.left -= n
			b.mu.Unlock()
			return true
		}
		b.mu.Unlock()
		select {
		case <-b.wake:
		case <-ctx.Done():
			return false
		}
	}
}

func (b *budget) free(n int) {
	b.mu.Lock()
	b.left += n
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
