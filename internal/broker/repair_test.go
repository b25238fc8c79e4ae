package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/vfs"
)

// repaired repairs a directory into the directory to and returns the report.
func repaired(t *testing.T, disk *vfs.Mem, to string) *queue.RepairReport {
	t.Helper()
	rep, err := disklog.Repair(disk, dataDir, to)
	if err != nil {
		t.Fatal(err)
	}
	snaps, err := disklog.OpenSnapshots(disk, to)
	if err != nil {
		t.Fatal(err)
	}
	loss, err := Repair(RepairOptions{Snapshots: snaps, Trimmed: rep.Trimmed, Tail: rep.Tail, Clock: clock.NewManual(start.Add(2 * time.Hour)),
		OpenLog: func() (commitlog.Replay, commitlog.Log, error) {
			return disklog.OpenStepped(disklog.Options{FS: disk, Dir: to, CacheBytes: -1, MinFree: -1})
		}})
	if err != nil {
		t.Fatal(err)
	}
	return loss
}

// TestRepairLetsTransientQueuesGo: a transient queue and its messages end with the broker, so
// repair does not list them as lost. A lost body in another queue is listed.
func TestRepairLetsTransientQueuesGo(t *testing.T) {
	r := openRecorded(t, vfs.NewMem(), newTruth(), start, smallSnapshots)
	r.send(&queue.Declare{Name: "brief", Config: surgetank.QueueConfig{Transient: true}})
	r.send(&queue.Declare{Name: "kept"})
	r.publish("brief", surgetank.Message{Body: []byte("not for long")})
	r.publish("kept", surgetank.Message{Body: []byte("for good")})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.rot("not for long")
	r.rot("for good")
	loss := repaired(t, r.disk, "saved/log")
	if len(loss.Queues) != 1 || loss.Queues[0].Name != "kept" || fmt.Sprint(loss.Queues[0].Bodies) != "[{1 1}]" {
		t.Errorf("repair reports the queues %+v, want the body of message 1 of kept alone", loss.Queues)
	}
}

// TestSteppedCloseKeepsASnapshot: Close of a stepped broker stores a snapshot that covers
// everything, as Close of a broker with goroutines does.
func TestSteppedCloseKeepsASnapshot(t *testing.T) {
	r := openRecorded(t, vfs.NewMem(), newTruth(), start, smallSnapshots)
	r.send(&queue.Declare{Name: "q"})
	r.publish("q", surgetank.Message{Body: []byte("all there is")})
	last := r.number
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := r.disk.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%020d.snap", last); names[0] != want {
		t.Errorf("the directory has %v, want the snapshot %s", names, want)
	}
}
