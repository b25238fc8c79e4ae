//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// inNamespace marks a program that was started again in its own mount namespace.
const inNamespace = "SURGETANK_FAULTS_NAMESPACE"

// ownNamespace starts this program again in a mount namespace of its own, where it is root: file systems that a fault needs are
// mounted there, nobody else sees them, and they are gone with the program however it ends. again says that it was
// done; err then says how the program ended. It returns an error alone when a namespace cannot be had.
func ownNamespace() (again bool, err error) {
	if os.Getenv(inNamespace) != "" {
		return false, nil
	}
	if os.Geteuid() != 0 {
		return false, errors.New("not root; the faults that mount a file system are skipped")
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may be gone already
		}
	}()
	err = cmd.Wait()
	if err == nil {
		os.Exit(0)
	}
	var e *exec.ExitError
	if errors.As(err, &e) && e.ExitCode() > 0 {
		os.Exit(e.ExitCode()) // it has said why
	}
	return true, err
}

// canMount says what is missing for faults that need a file system of their own.
func canMount() error {
	if os.Getenv(inNamespace) == "" {
		return errors.New("needs root and a mount namespace")
	}
	return nil
}
