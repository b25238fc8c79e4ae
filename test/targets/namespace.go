//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// inNamespace marks a program that was restarted in its own mount namespace.
const inNamespace = "SURGETANK_TARGETS_NAMESPACE"

// ownNamespace restarts this program in a mount namespace of its own. There it can mount small file
// systems for full disks, which other programs do not see and which end with the program. After a
// restart it does not return. An error says why there is no namespace; then no rounds with full
// disks are drawn.
func ownNamespace() error {
	if os.Getenv(inNamespace) != "" {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("not root; no disk is filled")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
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
	var e *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &e) && e.ExitCode() > 0:
		os.Exit(e.ExitCode()) // the program has reported the reason
	}
	fmt.Fprintln(os.Stderr, "targets:", err)
	os.Exit(1)
	return nil
}

// mountable reports whether small file systems can be mounted.
func mountable() bool { return os.Getenv(inNamespace) != "" }

// smallDisk mounts a file system of mib MiB at a new directory. unmount ends it.
func smallDisk(at string, mib int) (unmount func(), err error) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("surgetank-targets", at, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0755", mib)); err != nil {
		return nil, fmt.Errorf("mounting a tmpfs: %w", err)
	}
	return func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) }, nil
}

// fill uses all but leave bytes of a small disk while other programs write to it. free returns the
// space.
func fill(disk string, leave int64) (free func() error, err error) {
	name := filepath.Join(disk, "ballast")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	taken := int64(0)
	for err == nil {
		var s syscall.Statfs_t
		if err = syscall.Statfs(disk, &s); err != nil {
			break
		}
		size := int64(s.Bavail)*s.Bsize - leave
		if size <= 0 {
			break
		}
		err = syscall.Fallocate(int(f.Fd()), 0, taken, size)
		switch {
		case err == nil:
			taken += size
		case errors.Is(err, syscall.ENOSPC): // another program used some space; check again how much is left
			err = nil
		}
	}
	return func() error { return os.Remove(name) }, errors.Join(err, f.Close())
}
