package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/seqset"
	"github.com/surgetank/surgetank/internal/vfs"
)

// drained contains the messages that a broker delivered.
type drained struct {
	ids     map[surgetank.MessageID]bool
	damaged map[surgetank.MessageID]string
}

// drain receives all messages of all queues, and checks their bytes and order.
func (r *damageRig) drain() (d drained, err error) {
	d = drained{ids: map[surgetank.MessageID]bool{}, damaged: map[surgetank.MessageID]string{}}
	r.clock.Advance(time.Hour)
	c := &queue.Info{}
	r.send(c)
	last := map[string]uint64{}
	for _, q := range c.Infos {
		if q.Config.Paused {
			r.send(&queue.Pause{Name: q.Name})
		}
		for {
			ds := r.receive(q.Name, 16)
			for _, x := range ds {
				x.ID.Incarnation = 0 // a repair can lose the record of the incarnation
				want, known := r.truth.bodies[x.ID]
				switch {
				case !known:
					return d, fmt.Errorf("message %s (%.30q) was delivered and never stored", x.ID, x.Body)
				case !bytes.Equal(want, x.Body):
					return d, fmt.Errorf("message %s has the body %.40q, want %.40q", x.ID, x.Body, want)
				case d.ids[x.ID]:
					return d, fmt.Errorf("message %s was delivered twice", x.ID)
				case x.Group != r.truth.groups[x.ID]:
					return d, fmt.Errorf("message %s is of group %q, want %q", x.ID, x.Group, r.truth.groups[x.ID])
				}
				d.ids[x.ID] = true
				if line := fmt.Sprint(x.ID.Queue, x.Group); x.Group != "" {
					if last[line] > x.ID.Seq {
						return d, fmt.Errorf("message %s of group %q came behind %d", x.ID, x.Group, last[line])
					}
					last[line] = x.ID.Seq
				}
			}
			if len(ds) == 0 {
				break
			}
			ack := &queue.Settle{Results: make([]error, len(ds))}
			for _, x := range ds {
				ack.Items = append(ack.Items, surgetank.Settlement{Receipt: x.Receipt})
			}
			r.send(ack)
		}
		shown, err := r.Peek(context.Background(), q.Name, surgetank.PeekOptions{Max: 1000})
		if err != nil {
			return d, fmt.Errorf("peeking into %s: %w", q.Name, err)
		}
		after := r.info(q.Name)
		for _, x := range shown {
			x.ID.Incarnation = 0
			if x.State == surgetank.StateDamaged {
				if x.Damage == "" || len(x.Body) > 0 {
					return d, fmt.Errorf("message %s is damaged: %q, with a body of %d bytes", x.ID, x.Damage, len(x.Body))
				}
				d.damaged[x.ID] = x.Damage
				continue
			}
			// The only allowed reason to wait is a damaged earlier message of its strict group.
			if x.State != surgetank.StateBlocked || x.Group == "" || after.Damaged == 0 || !strings.Contains(after.Waiting, "damaged") {
				return d, fmt.Errorf("message %s of group %q is %s and not given out: %s", x.ID, x.Group, x.State, after.Waiting)
			}
			if !slices.ContainsFunc(shown, func(o surgetank.Delivery) bool {
				return o.State == surgetank.StateDamaged && o.Group == x.Group && o.ID.Seq < x.ID.Seq
			}) {
				return d, fmt.Errorf("message %s of group %q waits, and nothing before it is damaged", x.ID, x.Group)
			}
			if !bytes.Equal(x.Body, r.truth.bodies[x.ID]) {
				return d, fmt.Errorf("message %s has the body %.40q in a peek", x.ID, x.Body)
			}
			d.ids[x.ID] = true
		}
	}
	return d, nil
}

// outcome is the effect of a damage.
type outcome int

const (
	harmless outcome = iota // nothing is lost
	refused                 // the opening fails and names the damaged file
	reported                // the broker opens, and names the damaged messages
)

// judge opens a damaged directory. Either the opening must fail and name the damage. Or the broker
// must have the whole state, deliver exactly the intact messages and name the damaged ones.
func (v *victim) judge(t testing.TB, disk *vfs.Mem) (outcome, error) {
	r, err := openDamaged(t, disk, dataDir, v.truth, someSnapshots)
	if err != nil {
		if surgetank.CodeOf(err) != surgetank.CodeCorrupt || !strings.Contains(err.Error(), dataDir) {
			return refused, fmt.Errorf("it was refused without naming what is damaged: %w", err)
		}
		return refused, nil
	}
	if !slices.Contains(v.states, r.recovered) {
		return harmless, fmt.Errorf("it opened with another state (%d bytes) than was confirmed (%d bytes)", len(r.recovered), len(v.states[0]))
	}
	d, err := r.drain()
	if err != nil {
		return harmless, err
	}
	for id := range d.ids {
		if _, ok := v.truth.settled[id]; ok && !v.truth.unsure[id] {
			return harmless, fmt.Errorf("message %s was settled, and is delivered again", id)
		}
	}
	for id := range v.truth.live() {
		if _, damaged := d.damaged[id]; !d.ids[id] && !damaged {
			return harmless, fmt.Errorf("message %s is gone without a word", id)
		}
	}
	for id, what := range d.damaged {
		if !strings.Contains(what, dataDir+"/0000") || !strings.Contains(what, "surgetank") {
			return harmless, fmt.Errorf("message %s: the error names no file or remedy: %s", id, what)
		}
	}
	if len(d.damaged) > 0 {
		return reported, r.Close()
	}
	return harmless, r.Close()
}

// repaired repairs a damaged directory. It checks that the delivered messages and those listed as
// lost are all messages of the directory.
func (v *victim) repaired(t testing.TB, disk *vfs.Mem, detected bool) (_ *queue.RepairReport, err error) {
	const to = "saved/log"
	rep, err := disklog.Repair(disk, dataDir, to) // Repair verifies first, and reports the same problems as Verify
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	if detected && len(rep.Problems) == 0 {
		return nil, errors.New("the broker found damage, and verify none")
	}
	snaps, err := disklog.OpenSnapshots(disk, to)
	if err != nil {
		return nil, err
	}
	loss, err := Repair(RepairOptions{Snapshots: snaps, Trimmed: rep.Trimmed, Tail: rep.Tail, Clock: clock.NewManual(start.Add(2 * time.Hour)),
		Limits: queue.Limits{ExtentBytes: 4 << 10},
		OpenLog: func() (commitlog.Replay, commitlog.Log, error) {
			return disklog.OpenStepped(disklog.Options{FS: disk, Dir: to, SegmentBytes: disklog.MinSegmentBytes, CacheBytes: -1, MinFree: -1})
		}})
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	if after, err := disklog.Verify(disk, to, nil); err != nil || !after.Whole() {
		return nil, fmt.Errorf("verify after repair: %v %v", after.Problems, err)
	}
	// Damage of data that the broker does not read causes no loss. In that case the report must
	// list no queue.
	if len(rep.Problems) > 0 {
		defer func() {
			if err != nil {
				err = fmt.Errorf("%w; verify found %v", err, rep.Problems)
			}
		}()
	}
	if !detected && (len(rep.Problems) == 0 && !loss.Whole() || len(loss.Queues) > 0 || loss.Settled+loss.Unknown+loss.Contradictions > 0) {
		return nil, fmt.Errorf("nothing was damaged, and repair reports: %s", strings.Join(loss.Lines(), "; "))
	}
	key, err := contentsKey(disk, to, loss)
	if err != nil {
		return nil, err
	}
	if _, known := v.served.Load(key); known {
		return loss, nil
	}
	if err := v.serve(t, disk, to, loss); err != nil {
		return nil, err
	}
	v.served.Store(key, true)
	return loss, nil
}

// contentsKey returns a hash of the data that a broker reads from a repaired log: its newest
// snapshot and its entries. Verify has checked every byte of these data, so a broker behaves the
// same on two logs with the same key. Thousands of damages to one entry lead to the same key.
func contentsKey(disk *vfs.Mem, dir string, loss *queue.RepairReport) (key [sha256.Size]byte, err error) {
	h := sha256.New()
	fmt.Fprintln(h, loss.Losses, loss.Queues)
	snaps, err := disklog.OpenSnapshots(disk, dir)
	if err != nil {
		return key, err
	}
	at, snap, err := snaps.Latest()
	if err != nil {
		return key, err
	}
	if snap != nil {
		fmt.Fprintln(h, at)
		if _, err := io.Copy(h, snap); err != nil {
			return key, err
		}
	}
	var head []byte
	err = disklog.Inspect(disk, dir, true, func(e disklog.EntryInfo) error {
		head = binary.AppendUvarint(head[:0], uint64(e.Offset))
		head = binary.AppendUvarint(head, uint64(len(e.Data)))
		h.Write(strconv.AppendBool(head, e.Lost))
		h.Write(e.Data)
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}

// serve opens the repaired directory, receives all its messages, and checks them against the truth
// and the list of losses.
func (v *victim) serve(t testing.TB, disk *vfs.Mem, to string, loss *queue.RepairReport) error {
	tr := v.truth
	r, err := openDamaged(t, disk, to, tr, someSnapshots)
	if err != nil {
		return fmt.Errorf("opening what was repaired: %w", err)
	}
	d, err := r.drain()
	if err != nil {
		return fmt.Errorf("after repair (%s): %w", strings.Join(loss.Lines(), "; "), err)
	}
	if err := account(tr, loss, d); err != nil {
		return fmt.Errorf("%w; repair reports: %s", err, strings.Join(loss.Lines(), "; "))
	}
	// No number is used twice, and damaged messages can be dropped.
	c := &queue.Info{}
	r.send(c)
	for _, q := range c.Infos {
		p := surgetank.Publishing{Queues: []string{q.Name}, Message: surgetank.Message{Body: []byte("new")}}
		pub := &queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)}
		r.send(pub)
		id := pub.Results[0].ID
		id.Incarnation = 0
		if pub.Results[0].Err != nil || tr.bodies[id] != nil && !tr.unsure[id] {
			return fmt.Errorf("a new message got the number %s of an old one (%v)", id, pub.Results[0].Err)
		}
		if q.Damaged > 0 {
			r.send(&queue.DropDamaged{Name: q.Name})
		}
		if i := r.info(q.Name); i.Damaged != 0 {
			return fmt.Errorf("%d damaged messages of %s are still there after a drop", i.Damaged, q.Name)
		}
	}
	if err := r.Close(); err != nil {
		return err
	}
	again, err := openDamaged(t, disk, to, tr, someSnapshots)
	if err != nil {
		return fmt.Errorf("opening it a second time: %w", err)
	}
	if got, want := again.machine.Losses(), loss.Losses; !slices.Equal(got, want) {
		return fmt.Errorf("after a restart the losses are %v, want %v", got, want)
	}
	return again.Close()
}

// account checks that every message is delivered, damaged or listed as lost, exactly once.
func account(tr *truth, loss *queue.RepairReport, d drained) error {
	inLost := func(entry uint64) bool {
		return entry > 0 && slices.ContainsFunc(loss.Losses, func(l queue.Loss) bool { return !l.Known && entry >= l.First && (entry <= l.Last || l.Tail) })
	}
	byID := map[uint64]queue.QueueLoss{}
	for _, q := range loss.Queues {
		byID[q.ID] = q
	}
	in := func(list []seqset.Run, seq uint64) bool {
		return slices.ContainsFunc(list, func(r seqset.Run) bool { return r.First <= seq && seq <= r.Last })
	}
	ids := slices.SortedFunc(maps.Keys(tr.bodies), func(a, b surgetank.MessageID) int { return int(int64(a.Queue<<32+a.Seq) - int64(b.Queue<<32+b.Seq)) })
	for _, id := range ids {
		q, listed := byID[id.Queue]
		missing, body := listed && in(q.Missing, id.Seq), listed && in(q.Bodies, id.Seq)
		_, damaged := d.damaged[id]
		settled, wasSettled := tr.settled[id]
		switch {
		case tr.unsure[id]: // the message was not confirmed, so it may be missing
		case d.ids[id] && (missing || damaged):
			return fmt.Errorf("message %s was delivered, and is listed as lost", id)
		case damaged != body:
			return fmt.Errorf("message %s: damaged %v, its body listed as lost %v", id, damaged, body)
		case d.ids[id] && wasSettled && !inLost(settled):
			return fmt.Errorf("message %s was settled in entry %d, which is not lost, and is delivered again", id, settled)
		case wasSettled, d.ids[id], damaged:
		case missing, listed && q.Skipped > 0 && id.Seq >= q.Skipped:
			lost := inLost(tr.stored[id])
			for from, ok := tr.origin[id]; ok && !lost; from, ok = tr.origin[from] { // the transferred copy of a lost message is lost, too
				lost = inLost(tr.stored[from])
			}
			if !lost {
				return fmt.Errorf("message %s is listed as missing, and its entry %d is not lost", id, tr.stored[id])
			}
		case !listed && inLost(tr.stored[id]): // the entry with its queue is lost, too
		default:
			return fmt.Errorf("message %s of entry %d is gone and not listed as lost", id, tr.stored[id])
		}
	}
	return nil
}

func spread(list []seqset.Run) (n uint64) {
	for _, r := range list {
		n += r.Last - r.First + 1
	}
	return n
}
