//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// inNamespace marks a program that was restarted in its own mount namespace.
const inNamespace = "SURGETANK_FAULTS_NAMESPACE"

// ownNamespace restarts this program in a mount and a network namespace of its own, where it is
// root. There it can mount file systems and drop packets without effects on other programs, and
// everything is removed with the program. The network is only a loopback, so the dependencies of
// special builds are downloaded before. again says that the program was restarted; err then says
// how it ended. If a namespace is impossible, only an error is returned.
func ownNamespace() (again bool, err error) {
	if os.Getenv(inNamespace) != "" {
		return false, loopbackUp()
	}
	if os.Geteuid() != 0 {
		return false, errors.New("not root; the faults that mount a file system are skipped")
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	_ = exec.Command("go", "mod", "download").Run() // a build with missing modules reports them
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // the process may already be gone
		}
	}()
	err = cmd.Wait()
	if err == nil {
		os.Exit(0)
	}
	var e *exec.ExitError
	if errors.As(err, &e) && e.ExitCode() > 0 {
		os.Exit(e.ExitCode()) // the program has reported the reason
	}
	return true, err
}

// loopbackUp brings the loopback of a new network namespace up.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// canMount returns what is missing for faults that need a file system of their own.
func canMount() error {
	if os.Getenv(inNamespace) == "" {
		return errors.New("needs root and a mount namespace")
	}
	return nil
}
