// Package server runs `surgetank serve` for a campaign, in a separate process on free loopback
// ports. One Server continues over all kills and restarts of the process.
package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/surgetank/surgetank/internal/server/child"
	"github.com/surgetank/surgetank/test/kit/proc"
)

// ErrNotReady is the error of Start if the process ended before it was ready.
var ErrNotReady = child.ErrNotReady

// Watcher is told about the lives of a server. Its methods run one after the other.
type Watcher interface {
	Up(began time.Time) // the process was started at began and is ready
	// Down: the process has ended. The argument killed is the time of the first fatal signal from
	// this program, or zero. err is the process's exit error.
	Down(killed time.Time, err error)
}

// Server is a server in a separate process. A restart uses the same data and addresses. Its methods
// are for one goroutine, except for URL, HTTP, AMQP, PID and Exited. Set the fields before Start.
type Server struct {
	Binary, Data string
	Log          string   // file to which the server's standard error output is appended
	Args, Env    []string // further flags of serve, further environment
	Dir          string   // working directory; empty: the caller's
	Watcher      Watcher  // told about starts and ends; nil: nobody
	// Wrap, if set, changes the command line of the next start, and is then reset. So a fault
	// affects one process only.
	Wrap func(argv []string) []string

	mu         sync.Mutex
	http, amqp string // addresses; amqp is empty if the door is off
	pid        int    // process id of the server itself, not of its wrapper
	killed     time.Time
	code       int
	child      *child.Server
	exited     chan struct{}
}

// Listen sets the addresses for the next start. An empty HTTP address means a free port. An empty
// AMQP address turns the AMQP door off.
func (s *Server) Listen(http, amqp string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.http, s.amqp = http, amqp
}

// FreeAddress returns a free loopback address. If another program uses the address first, the
// server's start fails.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", AnyPort)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// AnyPort is an address for Listen: a free port of the loopback address.
const AnyPort = "127.0.0.1:0"

// Start starts the process and returns when it is ready.
func (s *Server) Start(ctx context.Context) error {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	s.mu.Lock()
	door := s.amqp
	if door == "" {
		door = "off"
	}
	c := child.New(s.Binary, s.Data, log, append([]string{"--amqp", door}, s.Args...)...)
	if s.http != "" {
		c.Listen = s.http
	}
	c.Dir, c.Env, c.Wrap, s.Wrap = s.Dir, s.Env, s.Wrap, nil
	c.Attr, c.OnKill = ownGroup, killGroup
	s.child, s.pid, s.killed, s.code, s.exited = c, 0, time.Time{}, 0, make(chan struct{})
	s.mu.Unlock()
	began := time.Now()
	err = c.Start(ctx)
	if c.Exited() == nil { // the process was not started
		close(s.exited)
		return err
	}
	if err == nil {
		s.mu.Lock()
		s.pid, s.http, s.amqp = c.Ready.PID, c.Listen, strings.TrimPrefix(c.Ready.AMQP, "amqp://")
		s.mu.Unlock()
		if s.Watcher != nil {
			s.Watcher.Up(began)
		}
	}
	go s.await(c, s.exited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = fmt.Errorf("the server was not ready in time: %w", err)
	}
	<-s.exited
	return err
}

func (s *Server) await(c *child.Server, exited chan<- struct{}) {
	<-c.Exited()
	code, err := c.Exit()
	s.mu.Lock()
	s.code = code
	killed := s.killed
	s.mu.Unlock()
	if s.Watcher != nil {
		s.Watcher.Down(killed, err)
	}
	close(exited)
}

// URL returns the server's URL.
func (s *Server) URL() string { return "http://" + s.HTTP() }

// HTTP returns the address of its HTTP door, HOST:PORT.
func (s *Server) HTTP() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.http
}

// AMQP returns the address of its AMQP door, HOST:PORT.
func (s *Server) AMQP() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.amqp
}

// PID returns the process id of the server itself, or 0 before it is ready.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// RSS returns the server's resident memory in bytes, and FDs the number of its open descriptors.
// Without a process both are 0.
func (s *Server) RSS() int64 { return proc.RSS(s.PID()) }

// FDs is described at RSS.
func (s *Server) FDs() int { return proc.FDs(s.PID()) }

// Code returns the exit code of the last process: -1 if a signal ended it, and 0 while it runs.
func (s *Server) Code() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code
}

// Exited is closed when the process of the last Start has ended. Before the first Start it is nil.
func (s *Server) Exited() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exited
}

// Alive reports whether the process runs.
func (s *Server) Alive() bool {
	select {
	case <-s.Exited():
		return false
	default:
		return s.child != nil
	}
}

// Signal sends a signal to the server itself.
func (s *Server) Signal(sig syscall.Signal) {
	if !s.Alive() {
		return
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM || sig == syscall.SIGINT {
		s.dooms()
	}
	s.send(sig)
}

// send sends a signal to the server itself, which may already be gone.
func (s *Server) send(sig os.Signal) {
	if pid := s.PID(); pid > 0 {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Signal(sig)
		}
	}
}

// dooms records the time of the first fatal signal.
func (s *Server) dooms() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed.IsZero() {
		s.killed = time.Now()
	}
}

// KillSoon kills the server and its wrapper, and does not wait for their end.
func (s *Server) KillSoon() {
	if s.child == nil {
		return
	}
	s.dooms()
	s.send(syscall.SIGKILL)
	s.child.Shoot()
}

// Kill ends the process like a power failure, and returns when it is gone.
func (s *Server) Kill() {
	if s.Alive() {
		s.KillSoon()
		<-s.exited
	}
}

// Wait waits until the process has ended by itself and returns its exit code.
func (s *Server) Wait(ctx context.Context) (int, error) {
	select {
	case <-s.exited:
		return s.Code(), nil
	case <-ctx.Done():
		return 0, errors.New("the server did not end")
	}
}

// Stop asks the server to stop in order, and waits. A server that does not stop in time is killed.
func (s *Server) Stop(ctx context.Context) error {
	if !s.Alive() {
		return nil
	}
	if runtime.GOOS == "windows" { // Windows has no such signal; a kill loses no confirmed message
		s.Kill()
		return nil
	}
	s.Signal(syscall.SIGTERM)
	code, err := s.Wait(ctx)
	switch {
	case err != nil:
		s.Kill()
		return err
	case code != 0:
		return fmt.Errorf("the server ended with exit code %d when it was asked to stop: %s", code, s.Tail(600))
	}
	return nil
}

// Tail returns the last n bytes of the server's log.
func (s *Server) Tail(n int64) string {
	b, err := os.ReadFile(s.Log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, int64(len(b))-n):])
}

// Command runs a surgetank command against the server and returns its output. The error contains
// everything that the command printed.
func (s *Server) Command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.Binary, args...)
	cmd.Env = append(os.Environ(), "SURGETANK_SERVER="+s.URL())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("surgetank %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return out, nil
}
