// Command guest is the first process of a virtual machine whose power the campaign cuts. It is
// /init in an initial RAM disk, next to a static `surgetank`. It loads its kernel modules,
// configures the network, mounts the disk, and starts the server. Then it forwards connections,
// because by default the server listens on the loopback address alone.
//
// The kernel's command line has the parameters of this program: guest.fs (ext4 or xfs), guest.http
// (the address in the ready line) and guest.pid (the machine's process on the host). The ready line
// goes to the second serial port, all other output to the console. A second TCP port accepts orders
// over HTTP. /clock?set=UNIX or ?add=SECONDS sets the clock. /net?… shapes the network with
// arguments of tc. /stop stops the server in order and switches the machine off.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses inside the machine. The network in front of it is qemu's own, 10.0.2.0/24.
const (
	address = "10.0.2.15"
	inside  = "127.0.0.1:8080"
	data    = "/disk/data"
)

func main() {
	fmt.Println("guest: begins")
	err := run()
	fmt.Println("guest: ended:", err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // if this fails, nothing is left to do
	select {}
}

// run does all steps of the package comment. It returns when the server has ended.
func run() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m[1], err)
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	args := map[string]string{}
	for f := range strings.FieldsSeq(string(line)) {
		if k, v, ok := strings.Cut(f, "="); ok {
			args[k] = v
		}
	}
	if err := modules(); err != nil {
		return err
	}
	if err := errors.Join(up("lo", "127.0.0.1"), up("eth0", address)); err != nil {
		return err
	}
	if err := disk("/dev/vda", args["guest.fs"]); err != nil {
		return err
	}
	return serve(args)
}

// modules loads the modules of /modules/order, in that order.
func modules() error {
	b, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(b)) {
		f, err := os.Open("/modules/" + name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		if err := f.Close(); err != nil {
			return err
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading the module %s: %w", name, err)
		}
	}
	return nil
}

// up waits until the kernel has found an interface, and sets its address with a mask of 24 bits.
func up(name, ip string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range 200 {
		if _, err = net.InterfaceByName(name); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("no network interface %s: %w", name, err)
	}
	set := func(request uint, ip string) error {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(net.ParseIP(ip).To4()); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, request, r)
	}
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := errors.Join(set(unix.SIOCSIFADDR, ip), set(unix.SIOCSIFNETMASK, "255.255.255.0")); err != nil {
		return fmt.Errorf("giving %s an address: %w", name, err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// disk waits until the kernel has found the device, and mounts it. The mount replays the file
// system's journal.
func disk(device, kind string) (err error) {
	for range 200 {
		if err = unix.Mount(device, "/disk", kind, 0, ""); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("mounting the disk as %s: %w", kind, err)
	}
	return nil
}

// serve runs the server and reports when it is ready.
func serve(args map[string]string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	cmd := exec.CommandContext(ctx, "/surgetank", "serve", "--json", "--data", data, "--http", inside, "--amqp", "off")
	cmd.Stderr = os.Stdout
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready := bufio.NewReader(out)
	if _, err := ready.ReadString('\n'); err != nil {
		return fmt.Errorf("the server was not ready: %w: %w", err, cmd.Wait())
	}
	go func() { _, _ = io.Copy(os.Stdout, ready) }() // the server prints nothing else
	if err := forward(address+":8080", inside); err != nil {
		return err
	}
	orders, err := net.Listen("tcp", address+":7070")
	if err != nil {
		return err
	}
	go func() { fmt.Println("guest: orders:", http.Serve(orders, handler(stop))) }()
	pid, err := strconv.Atoi(args["guest.pid"])
	if err != nil {
		return fmt.Errorf("guest.pid: %w", err)
	}
	port, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(json.NewEncoder(port).Encode(map[string]any{"http": args["guest.http"], "pid": pid}), port.Close()); err != nil {
		return err
	}
	return cmd.Wait()
}

// forward accepts connections on one address and forwards each to the other.
func forward(from, to string) error {
	l, err := net.Listen("tcp", from)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Println("guest: no more connections:", err)
				return
			}
			go pass(c, to)
		}
	}()
	return nil
}

// pass copies between two connections in both directions until both directions have ended. If one
// connection breaks, it closes the other.
func pass(c net.Conn, to string) {
	defer c.Close()
	s, err := net.Dial("tcp", to)
	if err != nil {
		return // the client sees a closed connection, as without the proxy
	}
	defer s.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(s, c)
		_ = s.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, s)
	_ = c.(*net.TCPConn).CloseWrite()
	<-done
}

// handler executes the campaign's orders.
func handler(stop func()) http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	mux.HandleFunc("POST /clock", func(w http.ResponseWriter, r *http.Request) {
		answer(w, setClock(r.FormValue("set"), r.FormValue("add")))
	})
	mux.HandleFunc("POST /net", func(w http.ResponseWriter, r *http.Request) {
		out, err := exec.Command("/sbin/tc", strings.Fields("qdisc replace dev eth0 root "+r.FormValue("as"))...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("tc: %w %s", err, out)
		}
		answer(w, err)
	})
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { stop() })
	return mux
}

// setClock sets the wall clock to a second since 1970, or moves it by seconds.
func setClock(set, add string) error {
	var at int64
	var err error
	if set != "" {
		at, err = strconv.ParseInt(set, 10, 64)
	} else {
		at, err = strconv.ParseInt(add, 10, 64)
		at += time.Now().Unix()
	}
	if err != nil {
		return err
	}
	return unix.Settimeofday(&unix.Timeval{Sec: at})
}
