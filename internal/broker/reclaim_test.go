package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

// smallDisk is the size of a disk with room for 40 of the smallest segments.
const smallDisk = 40 * disklog.MinSegmentBytes

// openSmall opens a broker on a small disk. The size of the log alone never starts a snapshot.
func openSmall(t *testing.T, disk *vfs.Mem) *damageRig {
	t.Helper()
	r, err := openKeeping(t, disk, dataDir, newTruth(), Options{SnapshotBytes: noSnapshots}, -1, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.disk = disk
	return r
}

// try publishes a message of 1,000 bytes and returns the error.
func (r *damageRig) try(m surgetank.Message, names ...string) (refused error) {
	r.t.Helper()
	m.Body = make([]byte, 1000)
	answered := false
	err := r.PublishAsync(context.Background(), []surgetank.Publishing{{Queues: names, Message: m}}, func(res []surgetank.PublishResult, err error) {
		answered = true
		if refused = err; err == nil {
			refused = res[0].Err
		}
	})
	if r.run(); err != nil || !answered {
		r.t.Fatal("the publish was not answered", err)
	}
	return refused
}

// fill publishes until the disk is full.
func (r *damageRig) fill(message func(i int) surgetank.Message, names ...string) {
	r.t.Helper()
	for i := range 2000 {
		if err := r.try(message(i), names...); surgetank.CodeOf(err) == surgetank.CodeFull {
			return
		} else if err != nil {
			r.t.Fatal(err)
		}
	}
	r.t.Fatal("the disk does not get full")
}

func plainMessage(int) surgetank.Message { return surgetank.Message{} }

// consume acks all available messages, some at a time.
func (r *damageRig) consume(name string, most int) {
	r.t.Helper()
	for most > 0 {
		got := r.receive(name, min(most, 50))
		if len(got) == 0 {
			return
		}
		r.settle(surgetank.Ack, got...)
		most -= len(got)
	}
}

// pass lets time pass without any command.
func (r *damageRig) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		r.clock.Advance(time.Second)
		r.run()
	}
}

// TestFullDiskComesBack fills the disk, settles the messages in one of several ways, and then sends
// no command. Within seconds messages must be accepted again. As no command comes, only the clock
// can start the freeing of space.
func TestFullDiskComesBack(t *testing.T) {
	dedup := func(i int) surgetank.Message { return surgetank.Message{DedupID: fmt.Sprint("id ", i)} }
	for name, c := range map[string]struct {
		config  surgetank.QueueConfig
		message func(int) surgetank.Message
		before  func(r *damageRig) // called when the disk is full
		drain   func(r *damageRig)
	}{
		"acked":                 {drain: func(r *damageRig) { r.consume("q", 9999) }},
		"acked, with dedup":     {config: surgetank.QueueConfig{DedupWindow: time.Hour}, message: dedup, drain: func(r *damageRig) { r.consume("q", 9999) }},
		"half of it acked":      {drain: func(r *damageRig) { r.consume("q", 200) }},
		"purged":                {drain: func(r *damageRig) { r.send(&queue.Purge{Name: "q"}) }},
		"the queue was deleted": {drain: func(r *damageRig) { r.send(&queue.Delete{Name: "q"}) }},
		"expired":               {config: surgetank.QueueConfig{TTL: time.Minute, DeadLetter: surgetank.DeadLetterDrop}, drain: func(r *damageRig) { r.pass(time.Minute) }},
		"rejected and dropped":  {config: surgetank.QueueConfig{DeadLetter: surgetank.DeadLetterDrop}, drain: func(r *damageRig) { r.settle(surgetank.Reject, r.receive("q", 9999)...) }},
		"dead-lettered, then acked": {drain: func(r *damageRig) {
			for {
				got := r.receive("q", 20)
				if len(got) == 0 {
					break
				}
				r.settle(surgetank.Reject, got...)
				r.pass(time.Second)
			}
			r.consume("q"+surgetank.DeadLetterSuffix, 9999)
		}},
		"acked slowly": {drain: func(r *damageRig) {
			for range 40 {
				r.consume("q", 10)
				r.pass(time.Second)
			}
		}},
		"acked from the newest on": {drain: func(r *damageRig) {
			for got := r.receive("q", 9999); len(got) > 0; {
				n := max(len(got)-20, 0)
				r.settle(surgetank.Ack, got[n:]...)
				got = got[:n]
				r.pass(time.Second)
			}
		}},
		"all but the oldest acked": {drain: func(r *damageRig) {
			got := r.receive("q", 9999)
			r.settle(surgetank.Ack, got[5:]...)
		}},
		"all but each fortieth acked": {drain: func(r *damageRig) {
			got := r.receive("q", 9999)
			var most []surgetank.Delivery
			for i, d := range got {
				if i%40 > 0 {
					most = append(most, d)
				}
			}
			r.settle(surgetank.Ack, most...)
		}},
		"the server was started again": {drain: func(r *damageRig) {
			r.consume("q", 9999)
			if err := r.Close(); err != nil {
				r.t.Fatal(err)
			}
			*r = *openSmall(r.t.(*testing.T), r.disk)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewMem()
			disk.SetCapacity(smallDisk)
			r := openSmall(t, disk)
			r.send(&queue.Declare{Name: "q", Config: c.config})
			r.send(&queue.Declare{Name: "other"})
			if c.message == nil {
				c.message = plainMessage
			}
			r.fill(c.message, "q")
			if s := r.Space(); !s.Full {
				t.Error("Space does not say that the disk is full")
			}
			c.drain(r)
			r.pass(15 * time.Second)
			for range 20 {
				if err := r.try(surgetank.Message{}, "other"); err != nil {
					t.Fatalf("a quarter of a minute after the messages were settled: %v (%+v)", err, r.Space())
				}
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			openSmall(t, disk)
		})
	}
}

// TestPinnedLog: a log begins with messages that are never consumed, and the rest of the log is
// dead. On a full disk these messages are moved, as far as there is room for the copies.
func TestPinnedLog(t *testing.T) {
	disk := vfs.NewMem()
	disk.SetCapacity(smallDisk)
	r := openSmall(t, disk)
	r.send(&queue.Declare{Name: "idle"})
	r.send(&queue.Declare{Name: "q"})
	for range 4 {
		if err := r.try(surgetank.Message{}, "idle"); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		r.fill(plainMessage, "q")
		r.consume("q", 9999)
		r.pass(15 * time.Second)
	}
	if got := len(r.receive("idle", 99)); got != 4 {
		t.Errorf("%d of the 4 messages that nobody consumed are there", got)
	}
}

// TestPinnedByMany: the messages that are never consumed are larger than the log's room, and the
// rest of the log is dead. They are moved in parts, and each part frees the room for the next part.
func TestPinnedByMany(t *testing.T) {
	disk := vfs.NewMem()
	disk.SetCapacity(smallDisk)
	r := openSmall(t, disk)
	r.send(&queue.Declare{Name: "idle"})
	r.send(&queue.Declare{Name: "q"})
	for range 100 {
		if err := r.try(surgetank.Message{}, "idle"); err != nil {
			t.Fatal(err)
		}
	}
	r.fill(plainMessage, "q")
	r.consume("q", 9999)
	r.pass(2 * time.Minute)
	if err := r.try(surgetank.Message{}, "q"); err != nil {
		t.Errorf("%v (%+v)", err, r.Space())
	}
	if got := len(r.receive("idle", 999)); got != 100 {
		t.Errorf("%d of the 100 messages that nobody consumed are there", got)
	}
}

// TestStrangersFillTheDisk: another program fills the disk, even while acks wait for room, and
// frees it later.
func TestStrangersFillTheDisk(t *testing.T) {
	disk := vfs.NewMem()
	r := openSmall(t, disk)
	r.send(&queue.Declare{Name: "q"})
	for range 100 {
		if err := r.try(surgetank.Message{}, "q"); err != nil {
			t.Fatal(err)
		}
	}
	disk.SetCapacity(1) // the disk is full from now on
	r.fill(plainMessage, "q")
	r.consume("q", 50)
	r.pass(10 * time.Second)
	disk.SetCapacity(0)
	r.pass(3 * time.Second)
	if err := r.try(surgetank.Message{}, "q"); err != nil {
		t.Errorf("after the disk had room again: %v", err)
	}
	r.consume("q", 9999)
}

// TestSnapshotThatDoesNotFit: the snapshot that would free the log does not fit on the full disk.
// The older snapshot is removed, the broker logs that the new one cannot be stored, and it stores
// the snapshot when there is room.
func TestSnapshotThatDoesNotFit(t *testing.T) {
	disk := vfs.NewMem()
	r := openSmall(t, disk)
	r.send(&queue.Declare{Name: "q"})
	for range 300 {
		if err := r.try(surgetank.Message{}, "q"); err != nil {
			t.Fatal(err)
		}
	}
	disk.SetCapacity(1)
	r.fill(plainMessage, "q")
	r.consume("q", 9999)
	r.pass(30 * time.Second)
	if err := r.try(surgetank.Message{}, "q"); surgetank.CodeOf(err) != surgetank.CodeFull {
		t.Fatalf("on a disk without any room: %v", err)
	}
	if r.reclaim.fails == 0 {
		t.Fatal("no snapshot failed: the test tests nothing")
	}
	disk.SetCapacity(disk.Used() + 16<<10) // room for a snapshot only
	r.pass(90 * time.Second)
	if err := r.try(surgetank.Message{}, "q"); err != nil {
		t.Errorf("after there was room for a snapshot: %v", err)
	}
}

// TestDrainedLogIsSmall: after a backlog was consumed, the directory shrinks to a constant size by
// itself. It contains two different snapshots, so damage to one loses nothing.
func TestDrainedLogIsSmall(t *testing.T) {
	disk := vfs.NewMem()
	r := openSmall(t, disk)
	r.send(&queue.Declare{Name: "q"})
	for range 3 {
		for range 500 {
			if err := r.try(surgetank.Message{}, "q"); err != nil {
				t.Fatal(err)
			}
		}
		if used := disk.Used(); used < 500_000 {
			t.Fatalf("a backlog of 500 kB takes %d bytes", used)
		}
		r.consume("q", 9999)
		r.reclaim.minGain = 1 // this test's files are small
		r.pass(time.Minute)
		if used := disk.Used(); used > 6*disklog.MinSegmentBytes {
			t.Errorf("an empty log takes %d bytes", used)
		}
		if n := snapshotFiles(t, disk); n != 2 {
			t.Errorf("%d snapshots are there, want 2", n)
		}
	}
	number := r.number
	r.pass(time.Hour)
	if r.number != number {
		t.Errorf("a broker with nothing to do wrote %d entries in an hour", r.number-number)
	}
	if r.reclaim.next < r.now()+int64(time.Hour) {
		t.Error("a broker with nothing to do goes on looking for something")
	}
}

func snapshotFiles(t *testing.T, disk *vfs.Mem) (n int) {
	names, err := disk.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if len(name) > 5 && name[len(name)-5:] == ".snap" {
			n++
		}
	}
	return n
}
