// Package child runs `surgetank serve` as a child process that can be killed without warning and
// restarted with the same data and addresses. The demo and the campaigns (test/kit/server) use it;
// the library and the server do not.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Ready is the line that `surgetank serve --json` prints when all doors are open.
type Ready struct {
	Ready   bool   `json:"ready"`
	HTTP    string `json:"http,omitempty"` // URL
	AMQP    string `json:"amqp,omitempty"` // URL, without a user
	AMQPS   string `json:"amqps,omitempty"`
	Data    string `json:"data"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

// ErrNotReady says that the process ended before it was ready.
var ErrNotReady = errors.New("the server ended before it was ready")

// Server is a server in a separate process. Its methods are for one goroutine.
type Server struct {
	binary string
	args   []string
	log    io.Writer

	// Set these fields before Start; the zero values work.
	Dir    string                       // working directory; empty: the caller's
	Env    []string                     // variables that are added to the caller's environment
	Wrap   func(argv []string) []string // changes the command line
	Attr   *syscall.SysProcAttr
	OnKill func(p *os.Process) // ends further processes, which Wrap has started
	Listen string              // HTTP address; a Start replaces it with the address in use

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
	err    error         // exit error; set before exited is closed
	Ready  Ready         // the Ready line of the running process
}

// New prepares a server of a surgetank binary with a data directory. args are further flags of
// serve; log receives its stderr. The first Start uses a free port, and later ones use the same
// port.
func New(binary, data string, log io.Writer, args ...string) *Server {
	return &Server{binary: binary, log: log, Listen: "127.0.0.1:0", args: append([]string{"serve", "--json", "--data", data}, args...)}
}

// Start starts the process and returns when it is ready. The error is ErrNotReady if the process
// ended instead.
func (s *Server) Start(ctx context.Context) error {
	argv := append(append([]string{s.binary}, s.args...), "--http", s.Listen)
	if s.Wrap != nil {
		argv = s.Wrap(argv)
	}
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Stderr, s.cmd.Dir, s.cmd.SysProcAttr = s.log, s.Dir, s.Attr
	s.cmd.Env = append(os.Environ(), s.Env...)
	s.cmd.WaitDelay = 5 * time.Second
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	type answer struct {
		ready Ready
		err   error
	}
	got := make(chan answer, 1)
	s.exited = make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		var a answer
		in := bufio.NewReader(out)
		line, err := in.ReadBytes('\n')
		if err != nil {
			a.err = ErrNotReady
		} else if err := json.Unmarshal(line, &a.ready); err != nil || !a.ready.Ready {
			a.err = fmt.Errorf("the server printed %.200q instead of being ready", line)
		}
		got <- a
		_, _ = io.Copy(io.Discard, in)
	}()
	go func() {
		<-read // Wait closes the pipe
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	select {
	case a := <-got:
		if a.err != nil {
			s.Kill()
			return a.err
		}
		s.Ready = a.ready
		s.Listen = a.ready.HTTP[len("http://"):]
		return nil
	case <-ctx.Done():
		s.Kill()
		return ctx.Err()
	}
}

// Exited is closed when the process has ended for any reason.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Exit returns the exit code of a process that has ended, or -1 if a signal ended it, and the
// error.
func (s *Server) Exit() (code int, err error) { return s.cmd.ProcessState.ExitCode(), s.err }

// Kill ends the process like a power failure, and returns when it is gone.
func (s *Server) Kill() {
	if s.Shoot() {
		<-s.exited
	}
}

// Shoot is Kill without the wait. It returns false if no process was started.
func (s *Server) Shoot() bool {
	if s.cmd == nil || s.cmd.Process == nil {
		return false
	}
	_ = s.cmd.Process.Kill() // the process may already be gone
	if s.OnKill != nil {
		s.OnKill(s.cmd.Process)
	}
	return true
}

// Stop asks the process to end in order, and waits for it. Where that is not possible (Windows), it
// kills the process, which loses nothing either.
func (s *Server) Stop(ctx context.Context) error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		s.Kill()
		return nil
	}
	select {
	case <-s.exited:
		return s.err
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("the server did not stop: %w", ctx.Err())
	}
}
