package embedded

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/vfs"
)

// halfFS is a file system in which the files below one directory have another file system in front.
type halfFS struct {
	vfs.FS
	under string
	bad   *vfs.Inject
}

func (f halfFS) of(name string) vfs.FS {
	if strings.HasPrefix(name, f.under) {
		return f.bad
	}
	return f.FS
}

func (f halfFS) Open(name string, m vfs.Mode) (vfs.File, error) { return f.of(name).Open(name, m) }
func (f halfFS) Rename(from, to string) error                   { return f.of(from).Rename(from, to) }
func (f halfFS) Remove(name string) error                       { return f.of(name).Remove(name) }
func (f halfFS) List(dir string) ([]string, error)              { return f.of(dir).List(dir) }
func (f halfFS) Mkdir(dir string) error                         { return f.of(dir).Mkdir(dir) }
func (f halfFS) SyncDir(dir string) error                       { return f.of(dir).SyncDir(dir) }
func (f halfFS) Lock(name, owner string) (vfs.Lock, error)      { return f.of(name).Lock(name, owner) }
func (f halfFS) Free(dir string) (int64, error)                 { return f.of(dir).Free(dir) }

// broken is a broker with three shards on three directories, whose second one can be broken.
type broken struct {
	t    *testing.T
	dirs []string
	away string
	fs   halfFS
}

func newBroken(t *testing.T) *broken {
	base := t.TempDir()
	x := &broken{t: t, away: filepath.Join(base, "away")}
	for _, name := range []string{"one", "two", "three"} {
		x.dirs = append(x.dirs, filepath.Join(base, name))
	}
	x.fs = halfFS{vfs.OS{}, x.dirs[1], vfs.NewInject(vfs.OS{})}
	return x
}

func (x *broken) open() *Broker {
	x.t.Helper()
	b, err := Open(x.dirs[0], Options{ShardDirs: []string{"", x.dirs[1], x.dirs[2]}, fs: x.fs, ScrubEvery: -1, ReopenWait: 50 * time.Millisecond})
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = b.Close() })
	return b
}

func (x *broken) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// waysToBreak has the ways in which the directory of shard 2 becomes unusable, and usable again.
var waysToBreak = map[string]struct{ breaks, mends func(x *broken) }{
	"removed": {func(x *broken) { x.must(os.Rename(x.dirs[1], x.away)) }, func(x *broken) { x.must(os.Rename(x.away, x.dirs[1])) }},
	"an empty mount point": {
		func(x *broken) { x.must(os.Rename(x.dirs[1], x.away)); x.must(os.Mkdir(x.dirs[1], 0o700)) },
		func(x *broken) { x.must(os.Remove(x.dirs[1])); x.must(os.Rename(x.away, x.dirs[1])) }},
	"an empty log": {
		func(x *broken) {
			x.must(os.Rename(x.dirs[1], x.away))
			x.must(os.MkdirAll(filepath.Join(x.dirs[1], "log"), 0o700))
		},
		func(x *broken) { x.must(os.RemoveAll(x.dirs[1])); x.must(os.Rename(x.away, x.dirs[1])) }},
	"read-only": {
		func(x *broken) {
			x.fs.bad.SetFault(vfs.Fault{Ops: vfs.OpChange | vfs.OpLock, N: 1, Forever: true, Err: syscall.EROFS})
		}, func(x *broken) { x.fs.bad.SetFault(vfs.Fault{}) }},
	"full": {
		func(x *broken) {
			x.fs.bad.SetFault(vfs.Fault{Ops: vfs.OpChange, N: 1, Forever: true, Err: syscall.ENOSPC})
		}, func(x *broken) { x.fs.bad.SetFault(vfs.Fault{}) }},
	"nothing can be read": {
		func(x *broken) {
			x.fs.bad.SetFault(vfs.Fault{Ops: vfs.OpAny, N: 1, Forever: true, Err: syscall.EIO})
		}, func(x *broken) { x.fs.bad.SetFault(vfs.Fault{}) }},
	"damaged": {func(x *broken) {
		x.must(os.CopyFS(x.away, os.DirFS(x.dirs[1])))
		x.must(os.Remove(filepath.Join(x.dirs[1], "log", "0000000000000001.seg")))
	}, nil},
}

func to(queue, body string) []surgetank.Publishing {
	return []surgetank.Publishing{{Queues: []string{queue}, Message: surgetank.Message{Body: []byte(body)}}}
}

func (x *broken) publish(b *Broker, queue, body string) {
	x.t.Helper()
	if r, err := b.Publish(within(x.t), to(queue, body)); err != nil || r[0].Err != nil {
		x.t.Fatal(queue, err, r)
	}
}

// receive receives the next message of a queue and acks it.
func (x *broken) receive(b *Broker, queue, want string) {
	x.t.Helper()
	ds, err := b.Receive(within(x.t), queue, surgetank.ReceiveOptions{Wait: time.Minute})
	if err != nil || len(ds) != 1 || string(ds[0].Body) != want {
		x.t.Fatalf("%s: %v, %v", queue, ds, err)
	}
	x.settle(b, ds[0].Receipt, surgetank.Ack)
}

func (x *broken) settle(b *Broker, r surgetank.Receipt, op surgetank.SettleOp) {
	x.t.Helper()
	if res, err := b.Settle(within(x.t), []surgetank.Settlement{{Receipt: r, Op: op}}); err != nil || res[0] != nil {
		x.t.Fatal(err, res)
	}
}

func unavailable(t *testing.T, what string, err error) {
	t.Helper()
	if surgetank.CodeOf(err) != surgetank.CodeUnavailable || !strings.Contains(err.Error(), "shard 2") {
		t.Errorf("%s: got %v, want CodeUnavailable about shard 2", what, err)
	}
}

// others checks that the queues of the other shards work while shard 2 does not. never: shard 2 was
// not open since the start.
func (x *broken) others(b *Broker, never bool) {
	t := x.t
	t.Helper()
	for _, name := range []string{"one", "three"} {
		x.publish(b, name, "meanwhile")
		x.receive(b, name, "meanwhile")
	}
	res, err := b.Publish(within(t), to("two", "refused"))
	if err == nil {
		err = res[0].Err
	}
	unavailable(t, "publish", err)
	done := make(chan []surgetank.PublishResult, 1)
	x.must(b.PublishAsync(within(t), append(to("one", "part"), to("two", "refused")...), func(r []surgetank.PublishResult, err error) { done <- r }))
	r := <-done
	if r[0].Err != nil {
		t.Error("a message for another shard in the same call:", r[0].Err)
	}
	unavailable(t, "a part of a publish", r[1].Err)
	x.receive(b, "one", "part")
	_, err = b.Queue(within(t), "two")
	unavailable(t, "Queue", err)
	_, err = b.Receive(within(t), "two", surgetank.ReceiveOptions{})
	unavailable(t, "Receive", err)
	_, err = b.Subscribe(within(t), "two", surgetank.SubscribeOptions{})
	unavailable(t, "Subscribe", err)
	all, err := b.Queues(within(t))
	unavailable(t, "Queues", err)
	if !door.IsPartial(err) {
		t.Errorf("the error of Queues is %T", err)
	}
	var names []string
	for i := range all {
		names = append(names, all[i].Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"one", "three"}) {
		t.Errorf("Queues returned %v", names)
	}
	_, err = b.Queue(within(t), "unknown")
	_, _, declared := b.DeclareQueue(within(t), "new", surgetank.QueueConfig{Shard: 3}, surgetank.DeclareOrUpdate)
	if never {
		unavailable(t, "an unknown queue", err)
		unavailable(t, "a new queue", declared)
	} else if surgetank.CodeOf(err) != surgetank.CodeNotFound || declared != nil {
		t.Error("unknown and new queues:", err, declared)
	} else if _, err := b.DeleteQueue(within(t), "new", surgetank.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if h := b.Shard(2).Health(); h.Err == nil || b.Shard(1).Health().Err != nil || b.Shard(3).Health().Err != nil || b.Health().Err == nil {
		t.Errorf("health: %+v", h)
	}
}

// back checks that shard 2 works and has what was confirmed.
func (x *broken) back(b *Broker, want ...string) {
	x.t.Helper()
	await(x.t, b.Shard(2), func(h Health) bool { return h.State == StateServing && h.Err == nil })
	for _, body := range want {
		x.receive(b, "two", body)
	}
	x.publish(b, "two", "again")
	x.receive(b, "two", "again")
	if all, err := b.Queues(within(x.t)); err != nil || len(all) != 4 {
		x.t.Error(len(all), err)
	}
	if _, err := b.Queue(within(x.t), "unknown"); surgetank.CodeOf(err) != surgetank.CodeNotFound {
		x.t.Error(err)
	}
}

// fill makes a queue in each shard. The dead letters of the queue one are in shard 2.
func (x *broken) fill(b *Broker) {
	x.t.Helper()
	for i, name := range []string{"one", "two", "three", "parked"} {
		c := surgetank.QueueConfig{Shard: i + 1}
		if name == "one" {
			c.DeadLetter = "parked"
		}
		if name == "parked" {
			c.Shard = 2
		}
		if _, _, err := b.DeclareQueue(within(x.t), name, c, surgetank.DeclareOrUpdate); err != nil {
			x.t.Fatal(err)
		}
	}
	x.publish(b, "two", "confirmed")
}

// reject makes a dead letter for shard 2.
func (x *broken) reject(b *Broker) {
	x.t.Helper()
	x.publish(b, "one", "dead")
	ds, err := b.Receive(within(x.t), "one", surgetank.ReceiveOptions{Wait: time.Minute})
	if err != nil || len(ds) != 1 {
		x.t.Fatal(err)
	}
	x.settle(b, ds[0].Receipt, surgetank.Reject)
}

// A broker starts without a shard that cannot be opened. The shard makes nothing in the wrong
// directory. When its own data is back, the shard works without a restart.
func TestStartWithoutAShard(t *testing.T) {
	for name, way := range waysToBreak {
		t.Run(name, func(t *testing.T) {
			x := newBroken(t)
			b := x.open()
			x.fill(b)
			x.must(b.Close())
			way.breaks(x)
			b = x.open()
			x.others(b, true)
			x.reject(b)
			x.others(b, true)
			if way.mends == nil {
				if h := b.Shard(2).Health(); h.State != StateFailed {
					t.Errorf("%+v", h)
				}
				return
			}
			if h := b.Shard(2).Health(); h.State != StateOpening {
				t.Errorf("%+v", h)
			}
			if _, err := os.Stat(x.dirs[1]); name == "removed" && !os.IsNotExist(err) {
				t.Error("the missing directory was made:", err)
			}
			way.mends(x)
			x.back(b, "confirmed")
			x.receive(b, "parked", "dead")
			x.must(b.Close())
			x.back(x.open())
		})
	}
}

// A shard fails while the broker runs. A subscription in another shard goes on, one in the failed
// shard continues after the next opening, and a dead letter for the shard arrives then.
func TestAShardFails(t *testing.T) {
	for name, way := range waysToBreak {
		if name == "an empty log" || name == "damaged" {
			continue // the open log does not read its directory again
		}
		t.Run(name, func(t *testing.T) {
			x := newBroken(t)
			b := x.open()
			x.fill(b)
			x.receive(b, "two", "confirmed")
			sub, err := b.Subscribe(within(t), "two", surgetank.SubscribeOptions{Credit: 10})
			x.must(err)
			x.publish(b, "two", "leased")
			leased, err := sub.Receive(within(t), nil, 1, 1<<20)
			x.must(err)
			var delivered atomic.Int64
			ended := make(chan struct{})
			other, err := b.Subscribe(within(t), "three", surgetank.SubscribeOptions{Credit: 10, NoAck: true})
			x.must(err)
			go func() {
				defer close(ended)
				for {
					if _, err := other.Receive(t.Context(), nil, 1, 1<<20); err != nil {
						return
					}
					delivered.Add(1)
				}
			}()
			way.breaks(x)
			r, err := b.Publish(within(t), to("two", "lost"))
			if err == nil && r[0].Err == nil {
				t.Fatal("a publish was confirmed without its shard")
			}
			await(t, b.Shard(2), func(h Health) bool { return h.State == StateOpening && !h.NextTry.IsZero() })
			res, err := b.Settle(within(t), []surgetank.Settlement{{Receipt: leased[0].Receipt}})
			if err != nil || surgetank.CodeOf(res[0]) != surgetank.CodeLeaseLost {
				t.Error(err, res)
			}
			x.publish(b, "three", "for the subscription")
			await(t, b, func(Health) bool { return delivered.Load() > 0 })
			x.must(other.Close())
			<-ended
			x.reject(b)
			x.others(b, false)
			way.mends(x)
			for { // an opening that began before the correction can fail
				ds, err := sub.Receive(within(t), nil, 1, 1<<20)
				if err != nil || string(ds[0].Body) != "leased" || !ds[0].Redelivered {
					t.Fatal(ds, err)
				}
				res, err := b.Settle(within(t), []surgetank.Settlement{{Receipt: ds[0].Receipt}})
				if err != nil {
					t.Fatal(err)
				}
				if res[0] == nil {
					break
				}
			}
			for ds, _ := sub.TryReceive(nil, 1, 1<<20); len(ds) > 0; ds, _ = sub.TryReceive(nil, 1, 1<<20) {
				x.settle(b, ds[0].Receipt, surgetank.Ack) // the publish without a confirm can be stored
			}
			x.must(sub.Close())
			if _, err := b.PurgeQueue(within(t), "two"); err != nil {
				t.Error(err)
			}
			x.back(b)
			x.receive(b, "parked", "dead")
		})
	}
}

// The first shard has the metadata: without it the broker does not start, and if it fails for good,
// the broker ends.
func TestTheFirstShardFails(t *testing.T) {
	x := newBroken(t)
	b := x.open()
	x.fill(b)
	x.must(b.Close())
	seg := filepath.Join(x.dirs[0], "log", "0000000000000001.seg")
	x.must(os.Rename(seg, x.away))
	if b, err := Open(x.dirs[0], Options{ShardDirs: []string{"", x.dirs[1], x.dirs[2]}}); surgetank.CodeOf(err) != surgetank.CodeCorrupt {
		t.Error(err)
		_ = b.Close()
	}
	x.must(os.Rename(x.away, seg))
	b = x.open()
	x.must(os.Rename(x.dirs[0], x.away))
	x.must(os.CopyFS(x.dirs[0], os.DirFS(x.away)))
	x.must(os.Remove(seg))
	_, _ = b.Publish(within(t), to("one", "uncertain"))
	select {
	case <-b.Done():
	case <-within(t).Done():
		t.Fatalf("%+v", b.Shard(1).Health())
	}
	if h := b.Health(); h.State != StateFailed || h.Err == nil {
		t.Errorf("%+v", h)
	}
}
