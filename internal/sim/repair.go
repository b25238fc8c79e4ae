package sim

import (
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/broker"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/disklog"
	"github.com/surgetank/surgetank/internal/queue"
	"github.com/surgetank/surgetank/internal/seqset"
	"github.com/surgetank/surgetank/internal/vfs"
)

// savedDir is the directory of repaired logs.
const savedDir = "saved/log"

// checkRepair repairs a damaged directory and opens the result. Every message that existed before
// the damage must exist with the same bytes, or be listed as lost. A settled message may exist
// again only if its settlement was in a lost entry.
func (p *prober) checkRepair(fs *vfs.Mem, whole *recovered, detected bool, h harm) {
	l := p.w.ledger
	l.checks++
	broken := func(format string, args ...any) { l.violation("repair", format, args...) }
	found, err := disklog.Verify(fs, dataDir, nil)
	if err != nil || detected && found.Whole() {
		broken("the broker found damage: %v; verify found %v, %v", detected, found, err)
		return
	}
	loss, err := p.repair(fs)
	if err != nil {
		broken("verify found %v, and then: %v", found.Problems, err)
		return
	}
	p.w.count.one(Repaired)
	if after, err := disklog.Verify(fs, savedDir, nil); err != nil || !after.Whole() {
		broken("what was repaired is damaged: %v, %v", after, err)
		return
	}
	r := p.openIn(fs, savedDir)
	if r.err != nil {
		broken("what was repaired does not open: %v", r.err)
		return
	}
	r.read()
	older := h == lied && !detected // the newest entries can be lost without a trace, and a rule can have used their numbers again
	for id, d := range r.byID() {
		if c := l.copies[id]; l.messages[string(d.Body)] == nil || !older && c != nil && (c.m.body != string(d.Body) || c.group != d.Group) {
			broken("%v of group %q has the body %q", id, d.Group, d.Body)
			return
		}
	}
	if older {
		return
	}
	if whole.records > 1 || r.records > 1 {
		return // rules ended or moved messages during the opening; a queue with a made-up name has other rules
	}
	if why := accounted(whole, r, loss); why != "" {
		broken("%s; found: %v; reported: %s", why, found.Problems, strings.Join(loss.Lines(), "; "))
	}
	for _, q := range loss.Queues {
		if len(q.Missing) > 0 {
			p.w.count.one(QueuesMissing)
		}
		if len(q.Bodies) > 0 {
			p.w.count.one(QueuesDamaged)
		}
	}
}

func (p *prober) repair(fs *vfs.Mem) (*queue.RepairReport, error) {
	rep, err := disklog.Repair(fs, dataDir, savedDir)
	if err != nil {
		return nil, err
	}
	snaps, err := disklog.OpenSnapshots(fs, savedDir)
	if err != nil {
		return nil, err
	}
	return broker.Repair(broker.RepairOptions{Snapshots: snaps, Trimmed: rep.Trimmed, Tail: rep.Tail, Clock: p.w.clock, Limits: queue.Limits{ExtentBytes: p.w.o.ExtentBytes},
		OpenLog: func() (commitlog.Replay, commitlog.Log, error) {
			o := logOptions(fs, savedDir, false, p.random, 0, func(bool) {}, nil)
			o.Snapshots = snaps
			return disklog.OpenStepped(o)
		}})
}

// accounted returns a description of the first message with a wrong account: it is neither found
// nor listed as lost, or found and listed, or found although it was never stored. It returns "" if
// there is none.
func accounted(before, after *recovered, loss *queue.RepairReport) string {
	facts := slices.ContainsFunc(loss.Losses, func(x queue.Loss) bool { return !x.Known }) // the facts of lost entries are not known
	lost := map[uint64]queue.QueueLoss{}
	for _, q := range loss.Queues {
		lost[q.ID] = q
	}
	in := func(list []seqset.Run, seq uint64) bool {
		return slices.ContainsFunc(list, func(r seqset.Run) bool { return r.First <= seq && seq <= r.Last })
	}
	there := after.byID()
	for id, d := range before.byID() {
		q, listed := lost[id.Queue]
		missing, body := listed && in(q.Missing, id.Seq), listed && in(q.Bodies, id.Seq)
		got, found := there[id]
		switch {
		case found && (missing || body):
			return id.String() + " is there and listed as lost"
		case found && (string(got.Body) != string(d.Body) || got.Group != d.Group):
			return id.String() + " is there with another body or group"
		case after.unread[id] != body:
			return id.String() + ": it is shown as damaged or listed as without a body, not both"
		case found, missing, body, listed && q.Skipped > 0 && id.Seq >= q.Skipped:
		case facts && !listed && !after.has(id.Queue): // the message's queue is lost, too
		default:
			return id.String() + " is gone and not listed as lost"
		}
		delete(there, id)
	}
	if len(there) > 0 && !facts {
		return slices.MinFunc(slices.Collect(maps.Keys(there)), byNumber).String() +
			" is back, and nothing that could have settled it is lost"
	}
	return ""
}

func byNumber(a, b surgetank.MessageID) int {
	if a.Queue != b.Queue {
		return int(int64(a.Queue - b.Queue))
	}
	return int(int64(a.Seq - b.Seq))
}

// byID returns the readable messages.
func (r *recovered) byID() map[surgetank.MessageID]*surgetank.Delivery {
	all := map[surgetank.MessageID]*surgetank.Delivery{}
	for _, ds := range r.found {
		for i := range ds {
			id := ds[i].ID
			id.Incarnation = 0 // the repair can have lost the record of the opening, which has the incarnation
			all[id] = &ds[i]
		}
	}
	return all
}

func (r *recovered) has(queue uint64) bool {
	return slices.ContainsFunc(r.infos, func(i surgetank.QueueInfo) bool { return i.ID == queue })
}
