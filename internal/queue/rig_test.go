package queue

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/surgetank/surgetank"
)

// rig drives one machine as a broker would. Its log is a slice: entry n is log[n-1]. Each test has
// its own rig.
type rig struct {
	tb     tb
	limits Limits
	seed   uint64
	m      *Machine
	now    int64
	log    [][]byte
	snaps  []rigSnapshot
	slow   bool // hand-outs do not leave the broker by themselves
}

// rigSnapshot is a finished snapshot and the last entry it covers.
type rigSnapshot struct {
	at   uint64
	data []byte
}

// rigStart is the time at which every rig begins. It is a whole second, because a slot stores whole
// seconds.
const rigStart = 1_800_000_000 * int64(time.Second)

// tb is the part of *testing.T and *rapid.T that a rig needs.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newRig(tb tb, limits Limits, seed uint64) *rig {
	r := &rig{tb: tb, limits: limits, seed: seed, now: rigStart}
	r.m = New(limits, seed)
	r.open()
	return r
}

// open ends recovery and begins an epoch.
func (r *rig) open() {
	r.m.Recovered(r.now)
	r.step(&OpenEpoch{Epoch: r.m.Epoch() + 1, Incarnation: 1000 + r.m.Epoch()})
}

// step runs turns at the rig's time until every command is finished. It returns all output.
func (r *rig) step(cmds ...Command) *Output {
	r.tb.Helper()
	all := &Output{}
	for first := true; first || len(cmds) > 0; first = false {
		number := uint64(len(r.log)) + 1
		h := EntryHeader{Epoch: r.m.Epoch(), Number: number, Time: r.m.TurnTime(r.now)}
		out := &Output{Entry: AppendHeader(nil, h)}
		done := r.m.Step(r.now, number, cmds, out)
		if out.Records > 0 {
			r.log = append(r.log, out.Entry)
		}
		if !r.slow {
			r.m.Released(out.Turn, r.now)
		}
		cmds = cmds[done:]
		all.Entry, all.Records = out.Entry, all.Records+out.Records
		all.Handouts, all.Ended = append(all.Handouts, out.Handouts...), append(all.Ended, out.Ended...)
	}
	return all
}

// advance moves the time, with a stop at each time when the machine has a timer due. It passes the
// output of every turn to f.
func (r *rig) advance(d time.Duration, f func(*Output)) {
	r.tb.Helper()
	until := r.now + int64(d)
	for turns := 0; ; turns++ {
		if turns > 1_000_000 {
			r.tb.Fatal("the machine always wants another turn")
		}
		at := r.m.NextDeadline()
		if at > until {
			break
		}
		r.now = max(r.now, at)
		f(r.step())
	}
	r.now = until
}

// settleDown runs turns until the machine has nothing to do now.
func (r *rig) settleDown(f func(*Output)) { r.advance(0, f) }

// takeSnapshot makes a whole snapshot between two turns.
func (r *rig) takeSnapshot(piece int) {
	r.m.StartSnapshot(uint64(len(r.log)))
	at := uint64(len(r.log))
	var data []byte
	for {
		p, last := r.m.SnapshotNext(piece)
		data = append(data, p...)
		if last {
			r.snaps = append(r.snaps, rigSnapshot{at, data})
			return
		}
	}
}

// replayed returns a machine made from the first n entries.
func (r *rig) replayed(n int) *Machine {
	r.tb.Helper()
	m := New(r.limits, r.seed)
	for _, e := range r.log[:n] {
		if _, err := m.Replay(e); err != nil {
			r.tb.Fatalf("replay: %v", err)
		}
	}
	m.Recovered(r.now)
	return m
}

// restored returns a machine made from a snapshot and the later entries.
func (r *rig) restored(s rigSnapshot) *Machine {
	r.tb.Helper()
	m := New(r.limits, r.seed)
	at, err := restoreBytes(m, s.data)
	if err != nil || at != s.at {
		r.tb.Fatalf("restore covers %d, want %d: %v", at, s.at, err)
	}
	for _, e := range r.log[s.at:] {
		if _, err := m.Replay(e); err != nil {
			r.tb.Fatalf("replay behind a snapshot: %v", err)
		}
	}
	m.Recovered(r.now)
	return m
}

// restoreBytes reads a snapshot from memory, as the broker does from a file.
func restoreBytes(m *Machine, data []byte) (uint64, error) {
	src := bytes.NewReader(data)
	return m.Restore(src, func(n int) ([]byte, error) {
		if n > src.Len() {
			return nil, io.ErrUnexpectedEOF
		}
		b := make([]byte, n)
		_, err := io.ReadFull(src, b)
		return b, err
	})
}

// load reads the message of a hand-out.
func (r *rig) load(h *Handout) (Stored, []surgetank.Death) {
	r.tb.Helper()
	var s Stored
	if err := ReadMessage(r.log[h.Ref.Entry()-1], h.Ref, &s); err != nil {
		r.tb.Fatalf("message %d of queue %s: %v", h.Seq, h.Queue.Name(), err)
	}
	var deaths []surgetank.Death
	for _, ref := range h.Notes {
		d, err := ReadNote(r.log[ref.Entry()-1], ref)
		if err != nil {
			r.tb.Fatalf("note of message %d of queue %s: %v", h.Seq, h.Queue.Name(), err)
		}
		deaths = append(deaths, d)
	}
	return s, append(deaths, s.Deaths...)
}

// relocate moves the survivors of entries [first, end) that pick chooses to the log's end. It
// returns their number.
func (r *rig) relocate(first, end uint64, pick func() bool) int {
	r.tb.Helper()
	scan := &Survivors{First: first, End: end}
	for !scan.Done {
		r.step(scan)
	}
	move := &Relocate{}
	for _, v := range scan.Found {
		if !pick() {
			continue
		}
		h := Handout{Queue: r.m.byID[v.Queue], Seq: v.Seq, Ref: v.Ref, Notes: v.Notes}
		s, deaths := r.load(&h)
		move.Items = append(move.Items, Relocation{Survivor: v, Message: &s.Message, Deaths: deaths, Time: s.Time})
	}
	r.step(move)
	return move.Moved
}

// publish returns a Publish of one message, prepared as a broker does it.
func publish(msg surgetank.Message, queues ...string) *Publish {
	return publishAll(surgetank.Publishing{Queues: queues, Message: msg})
}

func publishAll(ps ...surgetank.Publishing) *Publish {
	c := &Publish{Msgs: make([]Incoming, len(ps)), Results: make([]surgetank.PublishResult, len(ps))}
	for i := range ps {
		c.Msgs[i].Publishing = &ps[i]
		c.Results[i].Err = Check(&ps[i], surgetank.DefaultMaxMessage)
		if id := ps[i].Message.DedupID; id != "" {
			c.Msgs[i].Dedup = MakeDedupKey(id)
		}
	}
	return c
}

// keyHeader is the header in which tests put coalescing keys.
const keyHeader = "k"

// withKeys finds the coalescing keys of a command's messages, as a broker does.
func (r *rig) withKeys(c *Publish) *Publish {
	for i := range c.Msgs {
		in := &c.Msgs[i]
		for at, name := range in.Queues {
			q := r.m.byName[name]
			if q == nil || !q.coalesces() {
				continue
			}
			if in.Keys == nil {
				in.Keys = make([]Key, len(in.Queues))
			}
			value := in.Message.Group
			if q.config.Coalesce.By != "group" {
				value = ""
				for _, h := range in.Message.Headers {
					if h.Name == keyHeader {
						value = h.Value
					}
				}
			}
			if value != "" {
				in.Keys[at] = Key{MakeCoalesceKey(q.config.Coalesce.By, in.Message.Group, value), value == in.Message.Group}
			}
		}
	}
	return c
}

// frames cuts a snapshot into its records.
func frames(data []byte) (fs [][]byte) {
	for len(data) > 0 {
		n, w := binary.Uvarint(data)
		fs = append(fs, data[w:w+int(n)])
		data = data[w+int(n):]
	}
	return fs
}

func relative(at, now int64) string {
	if at == 0 || at == math.MaxInt64 {
		return "never"
	}
	return fmt.Sprintf("%+v", time.Duration(at-now))
}
