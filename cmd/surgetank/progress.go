package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows one live line on stderr during long work, on a terminal only. Elsewhere it prints
// nothing, so logs and pipes contain no partial lines.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	width int
	shown bool
	stop  chan struct{}
	done  chan struct{}
}

// isTerminal reports whether w is a terminal, and its width.
func isTerminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	return width, true
}

// startProgress redraws line() several times a second until finish.
func startProgress(w io.Writer, line func() string) *progress {
	width, ok := isTerminal(w)
	if !ok {
		return &progress{w: w}
	}
	p := &progress{w: w, width: width, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.draw(line())
			case <-p.stop:
				return
			}
		}
	}()
	return p
}

func (p *progress) draw(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(s) > p.width-1 {
		s = s[:p.width-1]
	}
	fmt.Fprintf(p.w, "\r%s\x1b[K", s)
	p.shown = true
}

// note writes a whole line without damaging the live line.
func (p *progress) note(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
	fmt.Fprintln(p.w, s)
}

// finish removes the live line.
func (p *progress) finish() {
	if p.stop != nil {
		close(p.stop)
		<-p.done
		p.stop = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// bar draws a fraction between 0 and 1 in ASCII: [#####.....].
func bar(share float64, width int) string {
	full := min(max(int(share*float64(width)), 0), width)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}
