//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// server is a server under test: a process tree that this program starts with an empty directory
// or, if argv is empty, an external server at addr. One goroutine at a time starts and stops it.
type server struct {
	addr       string // AMQP address, HOST:PORT
	user, pass string
	dir        string // directory of all data; the server's output is in dir/output.log
	argv, env  []string
	credential *syscall.Credential // user of the process; nil: the user of this program
	aside      *exec.Cmd           // an additional process that the server needs, or nil; not measured
	watch      int                 // pid of an external server to measure; 0: none

	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
	peak    atomic.Int64  // highest PSS so far, bytes
	sampler sync.WaitGroup
}

const (
	startLimit  = 5 * time.Minute // RabbitMQ needs two to recover two million messages of a classic queue
	stopLimit   = 3 * time.Minute
	pollEvery   = 10 * time.Millisecond
	sampleEvery = 500 * time.Millisecond
)

// external reports whether other programs start and stop the server.
func (s *server) external() bool { return len(s.argv) == 0 }

// pid returns the root of the process tree to measure, or 0 if no process is measured.
func (s *server) pid() int {
	if s.cmd != nil {
		return s.cmd.Process.Pid
	}
	return s.watch
}

// start runs the server and returns at once; awaitReady waits for it.
func (s *server) start() error {
	if s.external() {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(s.dir, "output.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := command(s.argv, s.env, s.credential)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", s.argv[0], err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the server's output says how it ended
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	s.sampler.Go(func() { s.sample(cmd.Process.Pid, exited) })
	return nil
}

// command prepares a process in a group of its own, so a Ctrl-C does not reach it before this
// program stops it.
func command(argv, env []string, credential *syscall.Credential) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// sample records the highest memory use until the process has ended.
func (s *server) sample(pid int, exited <-chan struct{}) {
	for {
		s.memory(pid)
		select {
		case <-exited:
			return
		case <-time.After(sampleEvery):
		}
	}
}

// memory returns the current PSS of a process tree. It also records the highest value.
func (s *server) memory(pid int) int64 {
	now := treePSS(pid)
	for high := s.peak.Load(); now > high && !s.peak.CompareAndSwap(high, now); high = s.peak.Load() {
	}
	return now
}

// stop ends the server cleanly, or with kill -9 of its whole process tree. It returns when all
// processes have ended.
func (s *server) stop(kill bool) error {
	if s.cmd == nil {
		return nil
	}
	defer func() { s.cmd = nil }()
	tree := processTree(s.cmd.Process.Pid)
	if kill {
		killAll(tree)
	} else if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var late error
	select {
	case <-s.exited:
	case <-time.After(stopLimit):
		late = fmt.Errorf("%s did not stop within %v of a SIGTERM and was killed", s.argv[0], stopLimit)
		killAll(tree)
		<-s.exited
	}
	for _, pid := range tree { // a child may live a little longer than its parent
		for end := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(pollEvery) {
			if time.Now().After(end) {
				killAll([]int{pid})
			}
		}
	}
	s.sampler.Wait()
	return late
}

func killAll(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // the process may already have ended
	}
}

// discard ends the server and its additional process, and removes its data.
func (s *server) discard() error {
	err := s.stop(true)
	if s.aside != nil && s.aside.Process != nil {
		_ = s.aside.Process.Kill()
		_ = s.aside.Wait() // the error does not matter: the process was killed on purpose
	}
	if s.dir == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// awaitReady waits until the server accepts an AMQP connection.
func (s *server) awaitReady(ctx context.Context) error {
	for end := time.Now().Add(startLimit); ; {
		conn, err := s.dial()
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.exited: // never for an external server, whose channel is nil
			return fmt.Errorf("the server ended before it was ready; its last output:\n%s", s.tail())
		case <-time.After(pollEvery):
		}
		if s.external() {
			return fmt.Errorf("no AMQP connection to %s; is the server running, and are address and login right? %w", s.addr, err)
		}
		if time.Now().After(end) {
			return fmt.Errorf("no AMQP connection to %s: %w; the server's last output:\n%s", s.addr, err, s.tail())
		}
	}
}

// tail returns the end of the server's output for an error message.
func (s *server) tail() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "output.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
