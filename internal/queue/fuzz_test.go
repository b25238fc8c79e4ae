package queue

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/surgetank/surgetank"
)

// corpus returns a log with every kind of record, and a snapshot of it.
func corpus(t tb) (log [][]byte, snapshot []byte) {
	s := newSeeded(t, 3)
	s.limits = Limits{}
	s.m = New(s.limits, 3)
	s.log = nil
	s.open()
	for range 80 {
		s.do()
	}
	for i, n := range []uint64{1, 4, 3, 9} {
		p := surgetank.Publishing{Queues: []string{s.m.order[0].name}, Publisher: "of-a-seeded-corpus", Sequence: n}
		if i == 3 {
			p.Publisher, p.Sequence = "another-of-a-corpus", 1
		}
		s.step(publishAll(p))
	}
	s.relocate(0, uint64(len(s.log)), func() bool { return s.rng.IntN(2) == 0 })
	s.takeSnapshot(1 << 20)
	return s.log, s.snaps[0].data
}

// bounded fails if f allocates far more than its input needs. Code must not allocate from a
// declared length.
func bounded(t *testing.T, input int, f func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20+uint64(input)*1024 {
		t.Errorf("%d bytes of input made %d bytes", input, used)
	}
}

// FuzzEntry reads hostile entries with every decoder. A decoder must not panic, and must return an
// error for input that it does not accept.
func FuzzEntry(f *testing.F) {
	log, _ := corpus(f)
	for _, e := range log {
		f.Add(e, uint32(0))
	}
	good := log[:min(len(log), 20)]
	f.Fuzz(func(t *testing.T, entry []byte, place uint32) {
		bounded(t, len(entry), func() {
			h, _, err := ParseHeader(entry)
			_ = Records(entry, func(EntryHeader, *Record) error { return nil })
			ref := makeRef(h.Number, int(place)%(len(entry)+1))
			var s Stored
			_ = ReadMessage(entry, ref, &s)
			_, _ = ReadNote(entry, ref)
			if err != nil {
				return
			}
			m := New(Limits{}, 1)
			for _, e := range good {
				if _, err := m.Replay(e); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := m.Replay(entry); err == nil {
				m.Recovered(rigStart)
				check(t, m)
			}
		})
	})
}

// FuzzRestore reads hostile snapshots. A machine that was restored from an accepted snapshot must
// satisfy the invariants.
func FuzzRestore(f *testing.F) {
	_, snapshot := corpus(f)
	f.Add(snapshot)
	for n := 1; n < len(snapshot); n = n*3/2 + 1 {
		f.Add(snapshot[:n])
	}
	all := frames(snapshot)
	for i := range all { // snapshots in which record i is left out, or is there twice
		var less, more []byte
		for j, fr := range all {
			if j != i {
				less = append(binary.AppendUvarint(less, uint64(len(fr))), fr...)
			} else {
				more = append(binary.AppendUvarint(more, uint64(len(fr))), fr...)
			}
			more = append(binary.AppendUvarint(more, uint64(len(fr))), fr...)
		}
		f.Add(less)
		f.Add(more)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		bounded(t, len(data), func() {
			m := New(Limits{}, 1)
			if _, err := restoreBytes(m, data); err != nil {
				return
			}
			m.Recovered(rigStart)
			check(t, m)
			out := &Output{Entry: AppendHeader(nil, EntryHeader{Epoch: 1, Number: 1 << 40})}
			m.Step(rigStart, 1<<40, []Command{&OpenEpoch{Epoch: m.Epoch() + 1, Incarnation: 1000 + m.Epoch()}}, out)
			m.Infos()
		})
	})
}
