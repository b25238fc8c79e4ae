//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// guestModules are the kernel modules that the machine loads, with their dependencies, if the
// kernel has them as modules.
var guestModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "libcrc32c", "ext4", "xfs", "sch_netem"}

// guestParts returns the directory of the machine's kernel: an unpacked Debian kernel package after
// depmod (scripts/deps-faults.sh).
func guestParts() string {
	if dir := os.Getenv("SURGETANK_GUEST_KERNEL"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil { // without a home directory there is no kernel; canBoot reports that
		cache = os.TempDir()
	}
	return filepath.Join(cache, "surgetank-faults", "kernel")
}

// kernel returns the newest kernel and the directory of its modules.
func kernel() (image, modules string, err error) {
	images, err := filepath.Glob(filepath.Join(guestParts(), "boot", "vmlinuz-*"))
	if err != nil {
		return "", "", err
	}
	slices.Sort(images)
	for _, image := range slices.Backward(images) {
		version := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		modules := filepath.Join(guestParts(), "lib", "modules", version)
		if _, err := os.Stat(filepath.Join(modules, "modules.dep")); err == nil {
			return image, modules, nil
		}
	}
	return "", "", fmt.Errorf("needs a kernel for a virtual machine, of which none is in %s: run scripts/deps-faults.sh (root on Debian)", guestParts())
}

// canBoot returns an error if this machine lacks something for a virtual machine.
func canBoot() error {
	if err := canFuse(); err != nil {
		return err
	}
	for _, tool := range []string{"qemu-system-x86_64", "mkfs.ext4", "mkfs.xfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s: run scripts/deps-faults.sh (root on Debian): %w", tool, err)
		}
	}
	_, _, err := kernel()
	return err
}

// neededModules returns the files of modules, dependencies first.
func neededModules(dir string, names []string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	byName, needs := map[string]string{}, map[string][]string{}
	for line := range strings.Lines(string(b)) {
		file, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(filepath.Base(file), ".ko")
		byName[strings.ReplaceAll(name, "-", "_")] = file
		needs[file] = strings.Fields(deps)
	}
	var order []string
	var add func(file string)
	add = func(file string) {
		if slices.Contains(order, file) {
			return
		}
		for _, d := range slices.Backward(needs[file]) {
			add(d)
		}
		order = append(order, file)
	}
	for _, n := range names {
		if file := byName[n]; file != "" { // a module without a file is built into the kernel
			add(file)
		}
	}
	return order, nil
}

// initramfs makes the machine's first file system: the guest's first process, the server, the
// kernel's modules, and tc if it is installed.
func (c *campaign) initramfs(ctx context.Context, to string) error {
	_, modules, err := kernel()
	if err != nil {
		return err
	}
	guest := filepath.Join(filepath.Dir(to), "guest")
	build := exec.CommandContext(ctx, "go", "build", "-o", guest, "github.com/surgetank/surgetank/test/faults/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the machine's first process: %w\n%s", err, out)
	}
	var a archive
	for _, d := range []string{"proc", "sys", "dev", "disk", "modules", "sbin", "lib", "lib64", "tmp"} {
		a.add(d, 0o040755, nil)
	}
	for _, f := range [][2]string{{"init", guest}, {"surgetank", c.binary}} {
		if err := a.file(f[0], f[1]); err != nil {
			return err
		}
	}
	files, err := neededModules(modules, guestModules)
	if err != nil {
		return err
	}
	var order []string
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(modules, f))
		if err != nil {
			return err
		}
		name := filepath.Base(f)
		if strings.HasSuffix(name, ".xz") {
			xz := exec.CommandContext(ctx, "xz", "-dc")
			xz.Stdin = bytes.NewReader(b)
			if b, err = xz.Output(); err != nil {
				return fmt.Errorf("unpacking %s: %w", f, err)
			}
			name = strings.TrimSuffix(name, ".xz")
		}
		a.add("modules/"+name, 0o100644, b)
		order = append(order, name)
	}
	a.add("modules/order", 0o100644, []byte(strings.Join(order, "\n")))
	if tc, err := exec.LookPath("tc"); err == nil {
		if err := a.program(ctx, "sbin/tc", tc); err != nil {
			return err
		}
	}
	a.add("TRAILER!!!", 0, nil)
	return os.WriteFile(to, a.b.Bytes(), 0o600)
}

// archive is a cpio archive in the form "newc", which the kernel unpacks (its
// Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	b     bytes.Buffer
	inode int
	have  map[string]bool
}

// add appends a file or, without bytes, a directory. It skips a name that exists.
func (a *archive) add(name string, mode int, content []byte) {
	if a.have == nil {
		a.have = map[string]bool{}
	}
	if a.have[name] {
		return
	}
	a.have[name] = true
	a.inode++
	// Magic, then 13 numbers of 8 hexadecimal digits: inode, mode, owner, group, links, time, size,
	// device (2), device of a special file (2), length of the name with its zero, no checksum.
	fmt.Fprintf(&a.b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.b.WriteString(name + "\x00")
	a.pad()
	a.b.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}

func (a *archive) file(name, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.add(name, 0o100755, b)
	return nil
}

// program adds a program and its linked libraries, under the names by which it finds them.
func (a *archive) program(ctx context.Context, name, from string) error {
	out, err := exec.CommandContext(ctx, "ldd", from).Output()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) { // ldd fails for a static program
		return err
	}
	for field := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(field, "/") {
			continue
		}
		for dir, all := "", strings.Split(strings.Trim(filepath.Dir(field), "/"), "/"); len(all) > 0; all = all[1:] {
			dir = strings.TrimPrefix(dir+"/"+all[0], "/")
			a.add(dir, 0o040755, nil)
		}
		if err := a.file(strings.TrimPrefix(field, "/"), field); err != nil {
			return err
		}
	}
	return a.file(name, from)
}
