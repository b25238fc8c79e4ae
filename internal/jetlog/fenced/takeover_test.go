package fenced_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/jetlog/fenced"
	"github.com/surgetank/surgetank/internal/jetlog/fenced/model"
)

// world is many processes that open one log, one after the other, while older ones still write. The
// state of each process is the list of all entries, so every state can be compared.
type world struct {
	rand   *rand.Rand
	s      *model.Stream
	owners []*process
	opened int
	acked  map[string]commitlog.Offset // every confirmed entry, by its text
	long   []string                    // the longest state that was read
	nested int
	errs   []error

	takeovers, voids, confirmed int // for the report
}

// process is one owner and its state.
type process struct {
	w      *world
	number int
	log    *fenced.Stepped
	port   *model.Port
	state  []string
	at     commitlog.Offset // the newest entry in state
	sent   int
	asleep bool // it does nothing until it wakes up
	ended  bool // its log has failed
	busy   bool // a call of the log is on the stack
}

// bytesOf is a reader of random bytes.
type bytesOf struct{ *rand.Rand }

func (r bytesOf) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return len(p), nil
}

func (w *world) fail(format string, args ...any) {
	w.errs = append(w.errs, fmt.Errorf(format, args...))
}

// open opens the log in a new process and checks the state that it reads.
func (w *world) open() *process {
	w.opened++
	p := &process{w: w, number: w.opened, port: w.s.Port()}
	ctx := context.Background()
	var err error
	p.log, err = fenced.AcquireStepped(ctx, fenced.Options{Stream: p.port, Name: "test", Clock: w.s.Clock, Window: 600, CacheBytes: 1000, GiveUp: time.Minute, Rand: bytesOf{w.rand}})
	if err == nil {
		err = p.recover(ctx)
	}
	if err != nil {
		if errors.Is(err, commitlog.ErrCorrupt) {
			w.fail("process %d: %v", p.number, err)
		}
		p.port.Cut()
		return nil
	}
	w.check(p)
	w.owners = append(w.owners, p)
	w.takeovers++
	return p
}

func (p *process) recover(ctx context.Context) error {
	from, r, err := p.log.Snapshots().Latest()
	if err != nil {
		return err
	}
	if r != nil {
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &p.state); err != nil {
			return err
		}
	}
	replay, err := p.log.Open(ctx, from)
	if err != nil {
		return err
	}
	p.at = from
	for {
		e, err := replay.Next()
		if errors.Is(err, io.EOF) {
			return replay.Close()
		}
		if err != nil {
			return err
		}
		if e.Offset <= p.at {
			return fmt.Errorf("entry %d follows entry %d: %w", e.Offset, p.at, commitlog.ErrCorrupt)
		}
		p.state, p.at = append(p.state, name(e.Data)), e.Offset
	}
}

// check compares a state that was read with everything that is known.
func (w *world) check(p *process) {
	if len(p.state) < len(w.long) {
		w.fail("process %d read %d entries, and an earlier one read %d", p.number, len(p.state), len(w.long))
		return
	}
	for i, e := range w.long {
		if p.state[i] != e {
			w.fail("process %d read %q as entry %d, and an earlier one read %q", p.number, p.state[i], i, e)
			return
		}
	}
	w.long = p.state[:len(p.state):len(p.state)]
	seen := map[string]bool{}
	next := map[int]int{}
	newest := 0
	for _, e := range p.state {
		var owner, n int
		if _, err := fmt.Sscanf(e, "%d:%d", &owner, &n); err != nil {
			w.fail("process %d read %q", p.number, e)
		}
		switch {
		case seen[e]:
			w.fail("process %d read %q twice", p.number, e)
		case n != next[owner]:
			w.fail("process %d read %q, and expected number %d of that owner", p.number, e, next[owner])
		case owner < newest:
			w.fail("process %d read %q after an entry of owner %d", p.number, e, newest)
		}
		seen[e], next[owner], newest = true, n+1, owner
	}
	for e, at := range w.acked {
		if !seen[e] {
			w.fail("process %d did not read %q, which was confirmed at %d", p.number, e, at)
		}
	}
}

// name returns the name of an entry, which is its text up to the first space.
func name(data []byte) string {
	for i, b := range data {
		if b == ' ' {
			return string(data[:i])
		}
	}
	return string(data)
}

func (p *process) append() {
	w := p.w
	e := fmt.Sprintf("%d:%d", p.number, p.sent)
	p.sent++
	data := fmt.Appendf(nil, "%s %*s", e, w.rand.IntN(40), "")
	if w.rand.IntN(8) == 0 {
		data = fmt.Appendf(nil, "%s %*s", e, w.rand.IntN(400), "") // several blobs
	}
	p.log.Append(data, func(at commitlog.Offset, err error) {
		if err != nil {
			p.ended = true
			return
		}
		if p.ended {
			w.fail("%q was confirmed after an entry had failed", e)
		}
		if at <= p.at {
			w.fail("%q was confirmed at %d, after an entry at %d", e, at, p.at)
		}
		p.state, p.at = append(p.state, e), at
		w.acked[e] = at
		w.confirmed++
	})
}

// act lets a process do something.
func (p *process) act() {
	w := p.w
	if p.busy || p.asleep {
		return
	}
	p.busy = true
	defer func() { p.busy = false }()
	switch {
	case p.ended:
		p.log.Pump()
	case w.rand.IntN(60) == 0 && len(p.state) > 0:
		p.save()
	case w.rand.IntN(3) == 0:
		for range 1 + w.rand.IntN(6) {
			p.append()
		}
	default:
		p.log.Pump()
	}
}

// save saves a snapshot and trims the log, as the broker does.
func (p *process) save() {
	state, err := json.Marshal(p.state)
	if err != nil {
		p.w.fail("%v", err)
		return
	}
	if err := p.log.Snapshots().Save(p.at, func(w io.Writer) error { _, err := w.Write(state); return err }); err != nil {
		if errors.Is(err, commitlog.ErrCorrupt) {
			p.w.fail("saving a snapshot: %v", err)
		}
		return
	}
	_ = p.log.Trim(p.at + 1) // the next snapshot trims again
}

// between is called before each operation of a process that waits. Messages arrive, and other
// processes act.
func (w *world) between() {
	if w.nested > 2 {
		return
	}
	w.nested++
	defer func() { w.nested-- }()
	for range w.rand.IntN(4) {
		w.s.Step()
	}
	if len(w.owners) > 0 && w.rand.IntN(2) == 0 {
		w.owners[w.rand.IntN(len(w.owners))].act()
	}
}

// step is one step of a run.
func (w *world) step() {
	switch r := w.rand.IntN(100); {
	case r == 0:
		w.open()
	case r == 1:
		w.s.NewLeader()
	case r == 2:
		w.s.Clock.Advance(time.Duration(w.rand.IntN(3000)) * time.Millisecond)
	case r < 8 && len(w.owners) > 0:
		i := w.rand.IntN(len(w.owners))
		if p := w.owners[i]; w.rand.IntN(3) == 0 && !p.busy { // the process dies
			p.port.Cut()
			w.owners = append(w.owners[:i:i], w.owners[i+1:]...)
		} else {
			p.asleep = !p.asleep
		}
	case r < 50 && len(w.owners) > 0:
		w.owners[w.rand.IntN(len(w.owners))].act()
	default:
		w.s.Step()
	}
}

// finish runs all processes until the newest one has no append in flight. It returns false if that
// process was fenced.
func (w *world) finish(newest *process) bool {
	for _, p := range w.owners {
		p.asleep = false
	}
	for range 5000 {
		busy := false
		for _, p := range w.owners {
			p.busy = true
			_, b := p.log.Pump()
			p.busy = false
			busy = busy || b
		}
		if !busy && w.s.Waiting() == 0 {
			break
		}
		if !w.s.Step() {
			w.s.Clock.Advance(100 * time.Millisecond)
		}
	}
	if errors.Is(newest.log.Failure(), commitlog.ErrFenced) {
		return false
	}
	for n := range newest.sent {
		if _, ok := w.acked[fmt.Sprintf("%d:%d", newest.number, n)]; !ok {
			w.fail("entry %d of process %d, which nobody has fenced, is not confirmed, although all faults are over", n, newest.number)
			break
		}
	}
	return true
}

// run runs a seed.
func run(seed uint64) *world {
	w := &world{rand: rand.New(rand.NewPCG(seed, 2)), acked: map[string]commitlog.Offset{}}
	w.s = model.New(seed, clock.NewManual(time.Unix(1e9, 0)))
	w.s.Data = 100
	w.s.Between = w.between
	p := func() float64 { return w.rand.Float64() * w.rand.Float64() * .2 }
	w.s.Faults = model.Faults{Lose: p(), LoseAnswer: p(), Late: 2 * p(), Reorder: 5 * p(), Fail: p() / 2, Stale: p()}
	for range 400 {
		w.step()
		if len(w.errs) > 0 {
			return w
		}
	}
	// The faults end. An owner that nobody has fenced must finish all its appends.
	w.s.Faults = model.Faults{}
	if n := len(w.owners); n > 0 && w.owners[n-1].number == w.opened && !w.owners[n-1].ended {
		w.finish(w.owners[n-1])
	}
	// A fence that a dead process sent can arrive late, so the next owner may need another try.
	for range 10 {
		last := w.open()
		if last == nil {
			w.fail("the log cannot be opened after the faults")
			return w
		}
		for range 5 {
			last.append()
		}
		if w.finish(last) {
			break
		}
	}
	w.open()
	return w
}

var (
	seedsFlag = flag.Uint64("seeds", 3000, "the number of runs of TestTakeovers")
	firstFlag = flag.Uint64("first", 0, "the first seed of TestTakeovers")
)

// TestTakeovers runs many seeds.
func TestTakeovers(t *testing.T) {
	seeds := *seedsFlag
	if testing.Short() {
		seeds /= 10
	}
	var takeovers, confirmed int
	for i := range seeds {
		seed := *firstFlag + i
		w := run(seed)
		for _, err := range w.errs {
			t.Errorf("seed %d: %v", seed, err)
		}
		if t.Failed() {
			return
		}
		takeovers += w.takeovers
		confirmed += w.confirmed
	}
	t.Logf("%d runs, %d openings, %d confirmed entries", seeds, takeovers, confirmed)
	if takeovers < int(seeds)*2 || confirmed < int(seeds)*10 {
		t.Error("the runs do too little")
	}
}

// TestRunsRepeat: a seed decides everything.
func TestRunsRepeat(t *testing.T) {
	for seed := range uint64(20) {
		a, b := run(seed), run(seed)
		if fmt.Sprint(a.long, a.s.Last(), a.takeovers) != fmt.Sprint(b.long, b.s.Last(), b.takeovers) {
			t.Fatalf("seed %d has two results", seed)
		}
	}
}

// TestOneFenceIsEnough: an owner that writes between any two steps of a new owner cannot prevent
// the takeover. A fence with a condition would never be stored.
func TestOneFenceIsEnough(t *testing.T) {
	w := &world{rand: rand.New(rand.NewPCG(1, 2)), acked: map[string]commitlog.Offset{}}
	w.s = model.New(1, clock.NewManual(time.Unix(1e9, 0)))
	first := w.open()
	first.append()
	drain(w.s, first.log)
	w.s.Between = func() {
		if w.nested > 0 || first.ended {
			return
		}
		w.nested++
		defer func() { w.nested-- }()
		first.append()
		for range 10 {
			first.log.Pump()
			w.s.Step()
		}
	}
	began := w.s.Clock.Passed()
	second := w.open()
	if second == nil {
		t.Fatal("the second owner could not open the log")
	}
	if took := w.s.Clock.Passed() - began; took > 0 {
		t.Errorf("the second owner had to try again for %v", took)
	}
	second.append()
	w.s.Between = func() {}
	drain(w.s, second.log)
	drain(w.s, first.log)
	w.open()
	for _, err := range w.errs {
		t.Error(err)
	}
	if len(first.state) < 2 || len(second.state) != len(first.state)+1 {
		t.Errorf("the first owner stored %d entries and the second one has %d", len(first.state), len(second.state))
	}
}
