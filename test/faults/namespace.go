//go:build linux

package main

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/surgetank/surgetank/test/kit/namespace"
)

// ownNamespace restarts this program in a mount and a network namespace of its own. The new network
// is only a loopback, so ownNamespace first downloads the dependencies of special builds.
func ownNamespace() error {
	if !namespace.Inside() {
		_ = exec.Command("go", "mod", "download").Run() // a build with missing modules reports them
	}
	if err := namespace.Own(syscall.CLONE_NEWNET); err != nil {
		return err
	}
	return loopbackUp()
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

// canMount returns an error if this program cannot mount file systems.
func canMount() error {
	if !namespace.Inside() {
		return errors.New("needs root and a mount namespace")
	}
	return nil
}
