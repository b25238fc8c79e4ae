package broker

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

// grouped opens a broker with some messages of a strict group and some without a group.
func grouped(t *testing.T, fs vfs.FS, disk *vfs.Mem) *damageRig {
	t.Helper()
	tr := newTruth()
	r, err := openWatched(t, fs, dataDir, tr, Options{SnapshotBytes: noSnapshots}, -1, -1, tr.learns(t))
	if err != nil {
		t.Fatal(err)
	}
	r.disk = disk
	r.send(&queue.Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{MaxInFlight: 1}}})
	for i := range 4 {
		r.publish("q", surgetank.Message{Body: fmt.Appendf(nil, "message %d of a", i), Group: "a"})
		r.publish("q", surgetank.Message{Body: fmt.Appendf(nil, "message %d of none", i)})
	}
	return r
}

// rot flips a bit of a text in the log while the broker is open.
func (r *damageRig) rot(text string) {
	r.t.Helper()
	names, err := r.disk.List(dataDir)
	if err != nil {
		r.t.Fatal(err)
	}
	hits := 0
	for _, name := range names {
		if err := r.disk.Corrupt(dataDir+"/"+name, func(b []byte) []byte {
			if i := bytes.Index(b, []byte(text)); i >= 0 {
				b[i] ^= 4
				hits++
			}
			return b
		}); err != nil {
			r.t.Fatal(err)
		}
	}
	if hits != 1 {
		r.t.Fatalf("%q stands in %d files", text, hits)
	}
}

func bodies(ds []surgetank.Delivery) (out []string) {
	for _, d := range ds {
		out = append(out, string(d.Body))
	}
	return out
}

func (r *damageRig) wantBodies(got []surgetank.Delivery, want ...string) {
	r.t.Helper()
	if fmt.Sprint(bodies(got)) != fmt.Sprint(want) {
		r.t.Errorf("received %q, want %q", bodies(got), want)
	}
}

// TestUnreadableMessageHoldsItsGroupOnly: one message is damaged while the broker runs. Later
// messages of its strict group wait, and all other messages are delivered. Statistics and a peek
// name the damage and the file. After a drop the group continues.
func TestUnreadableMessageHoldsItsGroupOnly(t *testing.T) {
	disk := vfs.NewMem()
	r := grouped(t, disk, disk)
	r.rot("message 1 of a")
	ds := r.receive("q", 9)
	r.wantBodies(ds, "message 0 of a", "message 0 of none", "message 1 of none", "message 2 of none", "message 3 of none")
	r.settle(surgetank.Ack, ds...)
	r.wantBodies(r.receive("q", 9))
	i := r.info("q")
	if i.Damaged != 1 || i.Blocked != 2 || i.Ready+i.Leased != 0 {
		t.Errorf("the figures are %+v", i)
	}
	for _, part := range []string{`Group "a" waits behind it`, dataDir + "/0000000000000001.seg is damaged at byte", "surgetank verify"} {
		if !strings.Contains(i.Waiting, part) {
			t.Errorf("waiting says %q, which lacks %q", i.Waiting, part)
		}
	}
	shown, err := r.Peek(t.Context(), "q", surgetank.PeekOptions{State: surgetank.StateDamaged})
	if err != nil || len(shown) != 1 || shown[0].ID.Seq != 3 || shown[0].Group != "a" || !strings.Contains(shown[0].Damage, "0001.seg") || len(shown[0].Body) > 0 {
		t.Errorf("a peek shows %+v, %v", shown, err)
	}
	drop := &queue.DropDamaged{Name: "q"}
	if r.send(drop); drop.Dropped != 1 || drop.Err != nil {
		t.Errorf("dropped %d, %v", drop.Dropped, drop.Err)
	}
	for _, want := range []string{"message 2 of a", "message 3 of a"} {
		ds := r.receive("q", 9)
		r.wantBodies(ds, want)
		r.settle(surgetank.Ack, ds...)
	}
}

// TestUnreadableMessageInARun: a consumer with GroupRun does not receive the messages after a
// damaged message of their group, although they were handed out.
func TestUnreadableMessageInARun(t *testing.T) {
	disk := vfs.NewMem()
	r := grouped(t, disk, disk)
	r.rot("message 1 of a")
	c := &queue.Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 20, Lease: surgetank.LeaseForever}, GroupRun: 4}}
	s := r.NewSubscription(c)
	r.send(c)
	take := func(want ...string) {
		t.Helper()
		var all []surgetank.Delivery
		for range 5 {
			ds, err := s.TryReceive(nil, 20, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ds...)
			r.run()
		}
		r.wantBodies(all, want...)
		if len(all) > 0 {
			r.settle(surgetank.Ack, all...)
		}
	}
	take("message 0 of a", "message 0 of none", "message 1 of none", "message 2 of none", "message 3 of none")
	r.publish("q", surgetank.Message{Body: []byte("message 4 of a"), Group: "a"})
	r.clock.Advance(time.Second)
	take()
	r.clock.Advance(time.Second)
	r.send(&queue.DropDamaged{Name: "q"})
	take("message 2 of a", "message 3 of a", "message 4 of a")
}

// TestDiskErrorIsTriedAgain: after an I/O error the message is read again, and keeps its position
// and its attempts.
func TestDiskErrorIsTriedAgain(t *testing.T) {
	disk := vfs.NewMem()
	inject := vfs.NewInject(disk)
	r := grouped(t, inject, disk)
	inject.SetFault(vfs.Fault{Ops: vfs.OpRead, N: 1, Err: syscall.EIO})
	if shown, err := r.Peek(t.Context(), "q", surgetank.PeekOptions{Max: 1}); err != nil || len(shown) != 1 || shown[0].Damage != "" {
		t.Errorf("one error of the disk is no damage: %+v, %v", shown, err)
	}
	inject.SetFault(vfs.Fault{Ops: vfs.OpRead, N: 1, Forever: true, Err: syscall.EIO})
	if shown, err := r.Peek(t.Context(), "q", surgetank.PeekOptions{Max: 1}); err != nil || len(shown) != 1 || shown[0].Damage == "" || r.info("q").Damaged != 0 {
		t.Errorf("a peek that cannot read shows %+v, %v, and %d are damaged", shown, err, r.info("q").Damaged)
	}
	inject.SetFault(vfs.Fault{})
	fails := 2
	inject.SetHook(func(op vfs.Op, _ string) {
		if op&vfs.OpRead == 0 {
			return
		}
		if fails--; fails == 0 {
			inject.SetFault(vfs.Fault{})
		}
	})
	inject.SetFault(vfs.Fault{Ops: vfs.OpRead, N: 1, Forever: true, Err: syscall.EIO})
	ds := r.receive("q", 9)
	r.wantBodies(ds, "message 0 of none", "message 1 of none", "message 2 of none", "message 3 of none")
	if i := r.info("q"); i.Damaged != 1 || !strings.Contains(i.Waiting, "input/output error") {
		t.Errorf("the figures are %+v", i)
	}
	r.clock.Advance(retryUnreadable)
	again := r.receive("q", 9)
	if r.wantBodies(again, "message 0 of a"); len(again) == 1 && again[0].Attempt != 1 {
		t.Errorf("it is attempt %d", again[0].Attempt)
	}
	if i := r.info("q"); i.Damaged != 0 {
		t.Errorf("the figures are %+v", i)
	}
}

// TestUnreadableWithoutAck: if a consumer without acks is handed an unreadable message, the message
// is counted as dropped. Other messages are delivered.
func TestUnreadableWithoutAck(t *testing.T) {
	disk := vfs.NewMem()
	r := grouped(t, disk, disk)
	r.rot("message 1 of none")
	c := &queue.Attach{Queue: "q", Now: true, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 4, NoAck: true}}}
	s := r.NewSubscription(c)
	r.send(c)
	ds, err := s.TryReceive(nil, 4, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	r.wantBodies(ds, "message 0 of a", "message 0 of none", "message 1 of a")
	if i := r.info("q"); i.Dropped != 1 || i.Damaged != 0 {
		t.Errorf("the figures are %+v", i)
	}
}

// TestSpaceBehindAnUnreadableMessage: the moving of survivors skips a message that cannot be read.
// The log line names the message, and its part of the log stays until the message is dropped.
// Afterwards this part is freed.
func TestSpaceBehindAnUnreadableMessage(t *testing.T) {
	disk := vfs.NewMem()
	r, err := openDamaged(t, disk, dataDir, newTruth(), someSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	r.send(&queue.Declare{Name: "old"})
	r.send(&queue.Declare{Name: "q"})
	for i := range 3 {
		r.publish("old", surgetank.Message{Body: fmt.Appendf(nil, "survivor %d", i)})
	}
	r.rot("survivor 1")
	churn := func() {
		for range 200 {
			r.publish("q", surgetank.Message{Body: make([]byte, 500)})
			r.settle(surgetank.Ack, r.receive("q", 9)...)
		}
	}
	churn()
	shown, err := r.Peek(t.Context(), "old", surgetank.PeekOptions{State: surgetank.StateDamaged})
	if err != nil || len(shown) != 1 || shown[0].ID.Seq != 2 || !strings.Contains(shown[0].Damage, "0001.seg") {
		t.Fatalf("a peek shows %+v, %v", shown, err)
	}
	if first, _, _, _, _ := r.machine.Oldest(); first != 1 {
		t.Fatalf("the log was freed up to entry %d, with the damaged message in it", first)
	}
	if _, live := r.machine.LogShare(); r.space.running || live > 200 {
		t.Errorf("moving is under way: %v; %d bytes are needed", r.space.running, live)
	}
	r.send(&queue.DropDamaged{Name: "old"})
	churn()
	if first, _, _, _, _ := r.machine.Oldest(); first < 200 {
		t.Errorf("after the drop the log still begins with entry %d", first)
	}
	r.wantBodies(r.receive("old", 9), "survivor 0", "survivor 2")
}
