package feed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/surgetank/surgetank"
)

// Line is one line of the input, without its line end.
type Line struct {
	N    int64 // counts all lines of the input from 1, through all files, empty ones too
	Body []byte
	File string // empty: standard input
	At   int64  // in the file

	group string
}

// Where names the line for people.
func (l Line) Where() string {
	if l.File == "" {
		return fmt.Sprintf("line %d", l.At)
	}
	return fmt.Sprintf("%s:%d", l.File, l.At)
}

// Source gives lines one after the other; ok is false behind the last.
type Source interface {
	Next() (l Line, ok bool, err error)
}

// Files reads files one after the other; "-" is standard input. Empty lines are counted and left out. A line longer than max
// bytes is an error, and is not read into memory.
type Files struct {
	names []string
	stdin io.Reader
	max   int

	n, at int64
	name  string
	in    *bufio.Reader
	close func() error
}

// NewFiles makes a source; no names mean standard input.
func NewFiles(names []string, stdin io.Reader, max int) *Files {
	if len(names) == 0 {
		names = []string{"-"}
	}
	return &Files{names: names, stdin: stdin, max: max}
}

// Next gives the next line that is not empty.
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
		body, err := f.line()
		switch {
		case errors.Is(err, io.EOF) && body == nil:
			if err := f.close(); err != nil {
				return Line{}, false, fmt.Errorf("closing the input: %w", err)
			}
			f.in = nil
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return Line{}, false, err
		}
		f.n++
		f.at++
		if len(body) == 0 {
			continue
		}
		return Line{N: f.n, Body: body, File: f.name, At: f.at}, true, nil
	}
}

func (f *Files) open(name string) error {
	f.at, f.name = 0, ""
	in := f.stdin
	f.close = func() error { return nil }
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return surgetank.Errorf(surgetank.CodeNotFound, "cannot read the input: %w", err)
		}
		in, f.close, f.name = file, file.Close, name
	}
	f.in = bufio.NewReaderSize(in, 256<<10)
	return nil
}

// line reads to the next line end. io.EOF comes with nil behind the last line, and with a body where the last line has no end.
func (f *Files) line() ([]byte, error) {
	var long []byte
	for {
		part, err := f.in.ReadSlice('\n')
		if len(long)+len(part) > f.max+1 {
			return nil, surgetank.Errorf(surgetank.CodeTooLarge, "%s has more than %d bytes; split it, or raise the server's max_message",
				Line{File: f.name, At: f.at + 1}.Where(), f.max)
		}
		switch {
		case err == nil:
			long = append(long, part[:len(part)-1]...)
			if long == nil {
				long = []byte{}
			}
			return long, nil
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
		case errors.Is(err, io.EOF):
			if len(part) > 0 {
				long = append(long, part...)
			}
			return long, io.EOF
		default:
			return nil, fmt.Errorf("reading the input: %w", err)
		}
	}
}

// budget bounds the bytes that were read and are not yet confirmed. A line larger than all of it goes when nothing else is held.
type budget struct {
	mu   sync.Mutex
	left int
	full int
	wake chan struct{}
}

func newBudget(n int) *budget { return &budget{left: n, full: n, wake: make(chan struct{}, 1)} }

// take is called by one goroutine.
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
