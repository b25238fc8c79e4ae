//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank/internal/server/child"
)

// shardRig is a server with three shards in three directories, as a process of its own. The second
// shard's directory can be broken.
type shardRig struct {
	*testing.T
	ctx    context.Context
	server *child.Server
	two    string // the directory of shard 2, or its mount point
	away   string // where the directory is while it is missing
	conn   *amqp091.Connection
}

// mountable reports whether this process may mount file systems.
func mountable(t *testing.T) bool {
	at := t.TempDir()
	if err := syscall.Mount("surgetank-test", at, "tmpfs", 0, "size=1m"); err != nil {
		return false
	}
	return syscall.Unmount(at, 0) == nil
}

func (r *shardRig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func newShardRig(t *testing.T) *shardRig {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	r := &shardRig{T: t, two: filepath.Join(base, "two"), away: filepath.Join(base, "away")}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	link := filepath.Join(base, "surgetank") // testscript's main function runs the command that has the program's name
	r.must(os.Symlink(binary, link))
	file := filepath.Join(base, "surgetank.yaml")
	r.must(os.WriteFile(file, fmt.Appendf(nil, "server:\n  shards: [{}, {dir: %q}, {dir: %q}]\nqueues: {one: {shard: 1}, two: {shard: 2}, three: {shard: 3}}\n", filepath.Join(r.two, "data"), filepath.Join(base, "three")), 0o600))
	r.must(os.Mkdir(r.two, 0o700))
	log, err := os.Create(filepath.Join(base, "log"))
	r.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the server's log:\n%s", text)
		}
		_ = log.Close()
	})
	r.server = child.New(link, filepath.Join(base, "one"), log, "--config", file)
	return r
}

func (r *shardRig) start() {
	r.Helper()
	r.must(r.server.Start(r.ctx))
	r.Cleanup(r.server.Kill)
	var err error
	r.conn, err = amqp091.Dial(strings.Replace(r.server.Ready.AMQP, "amqp://", "amqp://guest:guest@", 1))
	r.must(err)
}

func (r *shardRig) channel() *amqp091.Channel {
	r.Helper()
	ch, err := r.conn.Channel()
	r.must(err)
	r.must(ch.Confirm(false))
	return ch
}

// publish returns whether the publish was confirmed.
func (r *shardRig) publish(ch *amqp091.Channel, exchange, key, body string) bool {
	r.Helper()
	c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, amqp091.Publishing{Body: []byte(body), DeliveryMode: amqp091.Persistent})
	r.must(err)
	ok, err := c.WaitContext(r.ctx)
	r.must(err)
	return ok
}

func (r *shardRig) get(path string) (int, string) {
	r.Helper()
	resp, err := http.Get(r.server.Ready.HTTP + path)
	r.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	r.must(err)
	return resp.StatusCode, string(b)
}

// until asks the server again and again, until ok.
func (r *shardRig) until(what string, ok func() bool) {
	r.Helper()
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			r.Fatal("never:", what)
		}
	}
}

// state waits until the state of shard 2 is the wanted one, in metrics.
func (r *shardRig) state(want string) {
	r.Helper()
	r.until("shard 2 is "+want, func() bool {
		_, m := r.get("/metrics")
		return strings.Contains(m, `surgetank_shard_state{shard="2",state="`+want+`"} 1`)
	})
}

func (r *shardRig) next(from <-chan amqp091.Delivery, want string) amqp091.Delivery {
	r.Helper()
	select {
	case d, ok := <-from:
		if !ok || string(d.Body) != want {
			r.Fatalf("got %q (%v), want %q", d.Body, ok, want)
		}
		return d
	case <-r.ctx.Done():
		r.Fatal("no delivery of", want)
		panic("not reached")
	}
}

// others checks everything that must work while shard 2 does not, and how its queue is refused. The
// state "full" is a shard that is open and has no room. never: the shard was not open since the
// start, so a message for its queue and others is stored nowhere.
func (r *shardRig) others(state string, never bool) {
	r.Helper()
	in, out := r.channel(), r.channel()
	got, err := in.Consume("three", "", false, false, false, false, nil)
	r.must(err)
	for i := range 3 {
		body := fmt.Sprint("to three ", i)
		if r.publish(out, "", "two", "refused") {
			r.Error("a publish to a shard that is not open was confirmed")
		}
		if !r.publish(out, "", "three", body) {
			r.Error("a publish to another shard was refused on the same channel")
		}
		r.must(r.next(got, body).Ack(false))
	}
	if r.publish(out, "ex", "k", "bound") { // two does not have it
		r.Error("a publish to a queue of a shard that is not open was confirmed")
	}
	if !never {
		r.must(r.next(got, "bound").Ack(false))
	}
	if err := in.Close(); err != nil { // the acks belong to a shard that works
		r.Error("closing a channel of another shard:", err)
	}
	r.must(out.Close())
	if code, b := r.get("/readyz"); code != http.StatusOK || !strings.Contains(b, "shard 2 ") {
		r.Error("readyz:", code, b)
	}
	if code, b := r.get("/readyz?for=publish"); code != http.StatusServiceUnavailable || !strings.Contains(b, "shard 2 ") {
		r.Error("readyz for publishers:", code, b)
	}
	if state == "full" {
		return
	}
	r.state(state)
	if code, m := r.get("/metrics"); code != http.StatusOK || !strings.Contains(m, `surgetank_shard_up{shard="2"} 0`) || !strings.Contains(m, `surgetank_shard_up{shard="3"} 1`) ||
		!strings.Contains(m, `queue="three"`) {
		r.Error("metrics:", code)
	}
	var list struct {
		Queues     []struct{ Name string }
		Incomplete string
	}
	_, b := r.get("/v1/queues")
	r.must(json.Unmarshal([]byte(b), &list))
	if !strings.Contains(list.Incomplete, "shard 2 ") || len(list.Queues) != 2 {
		r.Error("queues:", b)
	}
	if code, b := r.get("/v1/queues/two"); code != http.StatusServiceUnavailable || !strings.Contains(b, `"unavailable"`) {
		r.Error("a queue of the shard:", code, b)
	}
}

// undeclared checks that no new queue is declared: the queue can be in the shard.
func (r *shardRig) undeclared() {
	r.Helper()
	_, err := r.channel().QueueDeclare("new", true, false, false, false, nil)
	if e, ok := err.(*amqp091.Error); !ok || e.Code != amqp091.PreconditionFailed || !strings.Contains(e.Reason, "shard 2 ") {
		r.Error("an unknown queue was declared:", err)
	}
}

// back checks that shard 2 works again without a restart.
func (r *shardRig) back(want ...string) {
	r.Helper()
	r.state("serving")
	r.until("messages are accepted", func() bool { code, _ := r.get("/readyz?for=publish"); return code == http.StatusOK })
	ch := r.channel()
	got, err := ch.Consume("two", "", true, false, false, false, nil)
	r.must(err)
	for _, body := range want {
		r.next(got, body)
	}
	if !r.publish(ch, "ex", "k", "both") {
		r.Error("the publish was refused")
	}
	r.next(got, "both")
	three, err := ch.Consume("three", "", true, false, false, false, nil)
	r.must(err)
	r.next(three, "both")
	r.must(ch.Close())
	if code, b := r.get("/readyz?for=publish"); code != http.StatusOK {
		r.Error("readyz for publishers:", code, b)
	}
	r.must(r.server.Stop(r.ctx))
}

// fill declares an exchange with a binding to a queue of each of two shards, and publishes a
// message to shard 2.
func (r *shardRig) fill(body string) {
	r.Helper()
	ch := r.channel()
	r.must(ch.ExchangeDeclare("ex", "direct", true, false, false, false, nil))
	r.must(ch.QueueBind("two", "k", "ex", false, nil))
	r.must(ch.QueueBind("three", "k", "ex", false, nil))
	if !r.publish(ch, "", "two", body) {
		r.Fatal("the publish was refused")
	}
	r.must(ch.Close())
}

// A server whose second shard is broken goes on with the others: when the shard breaks while the
// server runs, and when it is broken at the start. It serves without a restart when its disk is
// back.
func TestAShardOfAServerFails(t *testing.T) {
	mounts := mountable(t)
	data := func(r *shardRig) string { return filepath.Join(r.two, "data") }
	for _, way := range []struct {
		name            string
		mounts          bool // needs mounts
		before, running bool // when the shard can break in this way
		prepare         func(r *shardRig)
		breaks, mends   func(r *shardRig)
		state           string
	}{
		{"removed", false, true, true, nil,
			func(r *shardRig) { r.must(os.Rename(data(r), r.away)) }, func(r *shardRig) { r.must(os.Rename(r.away, data(r))) }, "opening"},
		{"unmounted", true, true, true,
			func(r *shardRig) {
				r.must(os.Mkdir(r.away, 0o700))
				r.must(syscall.Mount(r.away, r.two, "", syscall.MS_BIND, ""))
				r.Cleanup(func() { _ = syscall.Unmount(r.two, syscall.MNT_DETACH) })
			},
			func(r *shardRig) { r.must(syscall.Unmount(r.two, syscall.MNT_DETACH)) },
			func(r *shardRig) { r.must(syscall.Mount(r.away, r.two, "", syscall.MS_BIND, "")) }, "opening"},
		{"read-only", true, true, false,
			func(r *shardRig) {
				r.must(syscall.Mount(r.two, r.two, "", syscall.MS_BIND, ""))
				r.Cleanup(func() { _ = syscall.Unmount(r.two, syscall.MNT_DETACH) })
			},
			func(r *shardRig) {
				r.must(syscall.Mount("", r.two, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			},
			func(r *shardRig) { r.must(syscall.Mount("", r.two, "", syscall.MS_BIND|syscall.MS_REMOUNT, "")) }, "opening"},
		{"full", true, true, false,
			func(r *shardRig) {
				r.must(syscall.Mount("surgetank-test", r.two, "tmpfs", 0, "size=160m"))
				r.Cleanup(func() { _ = syscall.Unmount(r.two, syscall.MNT_DETACH) })
			},
			func(r *shardRig) {
				// The reserve of the log is lost, too: with a reserve the log has room for some
				// messages.
				for _, pattern := range []string{"log/*reserve*", "log/*.spare"} {
					names, err := filepath.Glob(filepath.Join(data(r), pattern))
					r.must(err)
					for _, name := range names {
						r.must(os.Remove(name))
					}
				}
				f, err := os.Create(filepath.Join(r.two, "ballast"))
				r.must(err)
				for block := make([]byte, 4096); err == nil; {
					_, err = f.Write(block)
				}
				_ = f.Close() // the disk is full
			},
			func(r *shardRig) { r.must(os.Remove(filepath.Join(r.two, "ballast"))) }, "full"},
		{"damaged", false, true, false, nil,
			func(r *shardRig) { r.must(os.Rename(filepath.Join(data(r), "log", "0000000000000001.seg"), r.away)) }, nil, "failed"},
	} {
		if way.mounts && !mounts {
			t.Logf("without the right to mount: not %s", way.name)
			continue
		}
		begin := func(t *testing.T) *shardRig {
			r := newShardRig(t)
			if way.prepare != nil {
				way.prepare(r)
			}
			r.start()
			r.fill("kept")
			return r
		}
		if way.running {
			t.Run(way.name+" while the server runs", func(t *testing.T) {
				r := begin(t)
				goes, err := r.channel().Consume("one", "", true, false, false, false, nil) // its connection must not notice
				r.must(err)
				way.breaks(r)
				ch := r.channel()
				if r.publish(ch, "", "two", "uncertain") {
					r.Error("a publish was confirmed without its log")
				}
				r.others(way.state, false)
				if !r.publish(ch, "", "one", "goes on") {
					r.Error("the publish was refused")
				}
				r.next(goes, "goes on")
				way.mends(r)
				r.state("serving")
				d, ok, err := ch.Get("two", true)
				if err != nil || !ok || string(d.Body) != "kept" {
					r.Error(string(d.Body), ok, err)
				}
				if _, err := ch.QueuePurge("two", false); err != nil { // the uncertain message
					r.Error(err)
				}
				r.back()
			})
		}
		if way.before {
			t.Run(way.name+" before the start", func(t *testing.T) {
				r := begin(t)
				r.must(r.server.Stop(r.ctx))
				way.breaks(r)
				r.start()
				r.others(way.state, way.state != "full")
				if way.state != "full" {
					r.undeclared()
				}
				if way.mends != nil {
					way.mends(r)
					r.back("kept")
				}
			})
		}
	}
}
