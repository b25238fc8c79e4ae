//go:build linux

package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/surgetank/surgetank/test/faults/powerfs"
	"github.com/surgetank/surgetank/test/kit/server"
)

// machine is a virtual machine that runs the server, in qemu with software emulation, so it needs
// no special rights. For the rest of the run it replaces the server's process: a start boots the
// machine, and a kill cuts its power.
type machine struct {
	r      *run
	kind   string // kind of the guest's file system
	image  string
	initrd string
	orders string // address for orders to the guest
	boots  int
}

// imageSize is the size of the virtual disk; xfs needs at least 300 MiB.
const imageSize = 512 << 20

// machine prepares a machine whose disk is a file in dir.
func (r *run) machine(ctx context.Context, kind, dir string) (*machine, error) {
	m := &machine{r: r, kind: kind, image: filepath.Join(dir, "image"), initrd: filepath.Join(r.dir, "initrd")}
	if err := static(r.binary); err != nil {
		return nil, err
	}
	if err := r.initramfs(ctx, m.initrd); err != nil {
		return nil, err
	}
	argv := []string{"sh", "-c", `truncate -s ` + fmt.Sprint(imageSize) + ` "$0" && "$@" "$0" && sync "$0" "$(dirname "$0")"`, m.image}
	if kind == "xfs" {
		argv = append(argv, "mkfs.xfs", "-q", "-f")
	} else {
		argv = append(argv, "mkfs.ext4", "-q", "-F")
	}
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making a file system of kind %s: %w %s", kind, err, out)
	}
	address, err := server.FreeAddress()
	if err != nil {
		return nil, err
	}
	r.server.Listen(address, "")
	if m.orders, err = server.FreeAddress(); err != nil {
		return nil, err
	}
	return m, nil
}

// static returns an error if a program could not run in the guest.
func static(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked with shared libraries, which the virtual machine lacks: build it with CGO_ENABLED=0", program)
		}
	}
	return nil
}

// boot makes the server's next start boot the machine.
func (m *machine) boot() error {
	image, _, err := kernel()
	if err != nil {
		return err
	}
	m.boots++
	console := filepath.Join(m.r.dir, fmt.Sprintf("console-%d.log", m.boots))
	_, http, _ := net.SplitHostPort(m.r.server.HTTP())
	_, orders, _ := net.SplitHostPort(m.orders)
	qemu := []string{"qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-smp", "1", "-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults",
		"-serial", "file:" + console, "-serial", "stdio", "-kernel", image, "-initrd", m.initrd,
		"-drive", "file=" + m.image + ",format=raw,if=none,id=disk,cache=writeback", "-device", "virtio-blk-pci,drive=disk",
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%s-10.0.2.15:8080,hostfwd=tcp:127.0.0.1:%s-10.0.2.15:7070", http, orders),
		"-device", "virtio-net-pci,netdev=net,romfile="}
	// The shell becomes qemu by exec, so its process id is qemu's.
	line := fmt.Sprintf("console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check guest.fs=%s guest.http=http://%s guest.pid=", m.kind, m.r.server.HTTP())
	m.r.server.Wrap = func([]string) []string {
		return append([]string{"sh", "-c", `exec "$@" -append "$0$$"`, line}, qemu...)
	}
	return nil
}

// start boots the machine and waits until its server is ready. On a busy host, an emulated machine
// sometimes fails before its first process, for lack of timer ticks. Such a failure says nothing
// about the server, so the machine is booted again.
func (m *machine) start(ctx context.Context) error {
	for try := 1; ; try++ {
		if err := m.boot(); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, 5*time.Minute) // a boot needs ten seconds on an idle host
		err := m.r.server.Start(limit)
		cancel()
		switch {
		case err == nil:
			return nil
		case strings.Contains(m.words(1<<20), guestBegins) || try == 3 || ctx.Err() != nil:
			return fmt.Errorf("booting: %w; the console's last words: %s", err, m.words(1500))
		}
		m.r.note("boot %d failed before the guest's first process began: %s", m.boots, m.words(300))
	}
}

// guestBegins is the guest's first line on the console.
const guestBegins = "guest: begins"

// words returns the end of the newest console log.
func (m *machine) words(n int) string {
	b, err := os.ReadFile(filepath.Join(m.r.dir, fmt.Sprintf("console-%d.log", m.boots)))
	if err != nil {
		return err.Error()
	}
	return oneLine(string(b[max(0, len(b)-n):]))
}

// order sends the guest an order.
func (m *machine) order(ctx context.Context, what string, form url.Values) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.orders+what, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("an order to the machine: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b := make([]byte, 300)
		n, _ := resp.Body.Read(b) // the body is only for the error's text
		return fmt.Errorf("the order %s %s was answered with %s: %s", what, form.Encode(), resp.Status, b[:n])
	}
	return nil
}

// end drains, stops the server in order and lets the machine switch itself off.
func (m *machine) end(ctx context.Context) error {
	drained, err := m.r.load.finish(ctx, 4*time.Minute)
	m.r.drained = drained
	m.r.load = nil
	if err != nil {
		return fmt.Errorf("draining: %w", err)
	}
	if err := m.order(ctx, "/stop", nil); err != nil {
		return err
	}
	if _, err := m.r.server.Wait(ctx); err != nil {
		return err
	}
	if w := m.words(4000); !strings.Contains(w, "msg=stopped") {
		m.r.fail("exit", "the server in the machine was asked to stop and did not do so in order: %s", w)
	}
	return nil
}

// guestLoad is the load for a machine that is about twenty times slower than the host.
var guestLoad = loadOptions{foreignClock: true, timeout: 10 * time.Second, lease: 3 * time.Second, size: 3000}

// machineCuts cuts the power of a whole machine under load: its memory and the kernel's unwritten
// data are lost. Every other time the disk also loses everything that was not flushed, in each of
// the ways of powerfs. After each cut the guest replays its file system's journal, and everything
// confirmed must be there.
func machineCuts(kind string, short, long int) func(context.Context, *run) error {
	return func(ctx context.Context, r *run) error {
		p, err := r.powerDisk("disk")
		if err != nil {
			return err
		}
		defer p.close()
		defer r.server.Kill()
		m, err := r.machine(ctx, kind, p.at)
		if err != nil {
			return err
		}
		if err := m.start(ctx); err != nil {
			return err
		}
		if err := r.declare(ctx); err != nil {
			return err
		}
		r.startLoad(ctx, guestLoad, r.server.URL)
		losses := []powerfs.Survival{powerfs.Nothing, powerfs.Some, powerfs.Torn}
		for i := range r.times(short, long) {
			if !r.progress(ctx, 50+r.rng.Int64N(300), 60*time.Second) {
				r.fail("progress", "under load fewer than 350 messages were confirmed in 60 s")
			}
			if i%2 == 0 {
				r.inject("power cut of a machine")
				r.server.Kill()
			} else if err := p.powerCut(losses[i/2%len(losses)]); err != nil {
				return err
			}
			if err := m.start(ctx); err != nil {
				if errors.Is(err, server.ErrNotReady) {
					r.fail("start", "after a power cut: %v", err)
					return nil
				}
				return err
			}
			if there, err := r.queuesThere(ctx); !there {
				return err
			}
		}
		return m.end(ctx)
	}
}
