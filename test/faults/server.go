//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/test/faults/history"
)

// server is a `surgetank serve` in a separate process. It is killed and restarted with the same
// data and port. Its ends and starts are in the journal. Its methods are for one goroutine; any
// goroutine may wait for exited.
type server struct {
	binary  string
	data    string
	args    []string
	log     *os.File // receives stderr
	journal *history.Journal

	// wrap, if set, changes the command line of the next start, and is then reset. So a fault
	// affects one life of the server.
	wrap   func(argv []string) []string
	env    []string
	listen string
	amqp   string // address for AMQP; empty: off

	cmd    *exec.Cmd
	pid    int // of the server itself, which a wrapper may have started
	exited chan struct{}

	mu     sync.Mutex
	killed time.Duration // when this process got a fatal signal; 0: none
	code   int           // exit code, once exited is closed; -1: ended by a signal
}

var errNotReady = errors.New("the server ended before it was ready")

// start starts the server and returns when it is ready. errNotReady says that the server ended
// instead, as some faults intend; code then has its exit code.
func (s *server) start(ctx context.Context) error {
	if s.listen == "" {
		s.listen = "127.0.0.1:0"
	}
	door := s.amqp
	if door == "" {
		door = "off"
	}
	argv := append([]string{s.binary, "serve", "--json", "--data", s.data, "--amqp", door, "--http", s.listen}, s.args...)
	if s.wrap != nil {
		argv = s.wrap(argv)
		s.wrap = nil
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stderr = s.log
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.cmd, s.pid, s.killed, s.code = cmd, 0, 0, 0
	s.exited = make(chan struct{})
	s.mu.Unlock()
	call := s.journal.Now()
	if err := cmd.Start(); err != nil {
		close(s.exited)
		return fmt.Errorf("starting the server: %w", err)
	}
	type ready struct {
		HTTP, AMQP string
		PID        int
	}
	got := make(chan ready, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		in := bufio.NewReader(out)
		var r ready
		if line, err := in.ReadBytes('\n'); err == nil && json.Unmarshal(line, &r) == nil && r.HTTP != "" {
			got <- r
		}
		close(got)
		_, _ = io.Copy(io.Discard, in) // until the process ends
	}()
	up := make(chan struct{}) // closed when the start is recorded, so that the end is recorded later
	go s.await(cmd, read, up)
	defer close(up)
	select {
	case r, ok := <-got:
		if !ok {
			up <- struct{}{}
			<-s.exited
			return errNotReady
		}
		s.pid = r.PID
		s.mu.Lock()
		s.listen, s.amqp = strings.TrimPrefix(r.HTTP, "http://"), strings.TrimPrefix(r.AMQP, "amqp://")
		s.mu.Unlock()
		s.journal.Add(history.Op{Kind: history.Up, Outcome: history.OK, Call: call, Return: s.journal.Now()})
		return nil
	case <-ctx.Done():
		s.killGroup()
		up <- struct{}{}
		<-s.exited
		return fmt.Errorf("the server was not ready in time: %w", ctx.Err())
	}
}

// await records the end of the process.
func (s *server) await(cmd *exec.Cmd, read, up <-chan struct{}) {
	<-read // Wait closes the pipe
	err := cmd.Wait()
	<-up
	s.mu.Lock()
	call := s.killed
	if call == 0 { // it ended by itself, after its last answer
		call = s.journal.Alive()
	}
	s.code = cmd.ProcessState.ExitCode()
	s.mu.Unlock()
	note := "exit"
	if err != nil {
		note = err.Error()
	}
	s.journal.Add(history.Op{Kind: history.Down, Outcome: history.OK, Call: call, Return: s.journal.Now(), Code: note})
	close(s.exited)
}

// url returns the server's URL. It is safe for use by many goroutines.
func (s *server) url() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.listen
}

// alive reports whether the process runs.
func (s *server) alive() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// signal sends a signal to the server itself.
func (s *server) signal(sig syscall.Signal) {
	if !s.alive() {
		return
	}
	s.mu.Lock()
	if s.killed == 0 && (sig == syscall.SIGKILL || sig == syscall.SIGTERM) {
		s.killed = s.journal.Now()
	}
	s.mu.Unlock()
	_ = syscall.Kill(s.pid, sig) // the process may already be gone
}

// killGroup ends the server and its wrapper.
func (s *server) killGroup() {
	s.mu.Lock()
	if s.killed == 0 {
		s.killed = s.journal.Now()
	}
	s.mu.Unlock()
	if s.cmd != nil && s.cmd.Process != nil {
		if s.pid > 0 {
			_ = syscall.Kill(s.pid, syscall.SIGKILL)
		}
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // the process may already be gone
	}
}

// kill ends the process like a power failure, and returns when it is gone.
func (s *server) kill() {
	if s.alive() {
		s.killGroup()
		<-s.exited
	}
}

// wait waits until the process has ended by itself and returns its exit code, or -1 if a signal
// ended it.
func (s *server) wait(ctx context.Context) (int, error) {
	select {
	case <-s.exited:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.code, nil
	case <-ctx.Done():
		return 0, errors.New("the server did not end")
	}
}

// words returns the last n bytes of the server's log.
func (s *server) words(n int64) string {
	info, err := s.log.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, min(n, info.Size()))
	if _, err := s.log.ReadAt(b, info.Size()-int64(len(b))); err != nil && err != io.EOF {
		return err.Error()
	}
	return string(b)
}
