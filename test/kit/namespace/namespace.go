//go:build linux

// Package namespace restarts a program in Linux namespaces of its own. There it can mount file
// systems and drop packets without effects on other programs.
package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// Mark is the environment variable of a program that was restarted.
const Mark = "SURGETANK_TEST_NAMESPACE"

// Inside reports whether this program was restarted by Own.
func Inside() bool { return os.Getenv(Mark) != "" }

// Own restarts this program in a mount namespace of its own, where it is root. Other namespaces can
// be added, such as syscall.CLONE_NEWNET. Everything in the namespace is removed with the program.
// Own returns only in the restarted program, or with an error if a namespace is impossible.
func Own(others uintptr) error {
	if Inside() {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("not root, so there is no mount namespace; faults that need one are skipped")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), Mark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | others, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // the process may already be gone
		}
	}()
	err = cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	if code < 0 { // otherwise the program has reported the reason
		fmt.Fprintln(os.Stderr, "the program in its own namespace:", err)
		code = 1
	}
	os.Exit(code)
	return nil
}
