package rules

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// world is a model of a bucket, and of the nodes that use it. Everything is decided by a seed.
//
//	proc.core ──Write──► on its way ──► bucket ──► history ──Changed──► proc.core of each node
//	          ◄─Answered─ late or lost ──┘          (in order; a watch can stall)
//
// During an election, the bucket stores nothing: a write is lost, or stored after the election.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Duration
	events queue
	number int
	faulty bool // writes and answers can be late or lost

	rev      uint64
	entries  map[string]entry
	history  []Changed
	election bool
	up       time.Duration // time without an election
	limbo    []func()
	procs    []*proc
	logs     []string
	trace    []string
	began    int
	moves    int
}

type entry struct {
	rev     uint64
	rec     *Record // nil: a marker
	expires time.Duration
}

type proc struct {
	w       *world
	id      string
	core    *Core
	stopped bool // SIGSTOP
	killed  bool
	cut     bool // no connection
	lostAt  time.Duration
	inbox   []Event
	seen    int           // changes that the watch has passed
	skip    bool          // after a cut, overwritten changes are not shown
	next    time.Duration // the watch passes nothing before
	stalled bool          // the watch passes nothing until it is replaced
	gen     int

	terms   map[string]uint64
	renewed map[string]time.Duration // sending time of the newest stored write of the term
	fog     map[string]bool          // a write of the key had no answer in time since the term began
	shown   map[string]Changed       // newest change that the watch has shown
	beats   []time.Duration          // w.up at each stored heartbeat
	never   bool                     // its programs do not react to Leave
}

type queued struct {
	at time.Duration
	n  int
	do func()
}
type queue []queued

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(queued)) }
func (q *queue) Pop() any          { x := (*q)[len(*q)-1]; *q = (*q)[:len(*q)-1]; return x }

func testConfig(id string) Config {
	return Config{ID: id, Name: id, Address: "addr-" + id, Heartbeat: 500 * ms, Renew: 3 * time.Second, TTL: 15 * time.Second, DeadAfter: 3 * time.Second,
		Answer: 2 * time.Second, Stagger: 600 * ms, Pause: 5 * time.Second, Leave: 3 * time.Second}
}

func newWorld(t *testing.T, seed uint64, logs int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 14)), entries: map[string]entry{}}
	for i := range logs {
		w.logs = append(w.logs, fmt.Sprintf("l%02d", i))
	}
	w.every(100*ms, w.age)
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("at %v: "+format+"\n%s", append(append([]any{w.now}, args...), strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"))...)
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9v ", w.now)+fmt.Sprintf(format, args...))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// between returns a random time.
func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

func (w *world) after(d time.Duration, do func()) {
	w.number++
	heap.Push(&w.events, queued{w.now + d, w.number, do})
}

func (w *world) every(d time.Duration, do func()) {
	w.after(d, func() { do(); w.every(d, do) })
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now + d; ; {
		if w.events[0].at > end {
			w.pass(end)
			return
		}
		e := heap.Pop(&w.events).(queued)
		w.pass(e.at)
		e.do()
	}
}

func (w *world) pass(to time.Duration) {
	if !w.election {
		w.up += to - w.now
	}
	w.now = to
}

// age removes expired values.
func (w *world) age() {
	if w.election {
		return
	}
	var old []string
	for k, e := range w.entries {
		if e.expires <= w.now {
			old = append(old, k)
		}
	}
	slices.Sort(old)
	for _, k := range old {
		if w.entries[k].rec == nil {
			delete(w.entries, k)
			continue
		}
		w.note("expired %s", k)
		w.put(k, nil, time.Second)
	}
}

func (w *world) put(k string, rec *Record, ttl time.Duration) uint64 {
	w.rev++
	w.entries[k] = entry{w.rev, rec, w.now + ttl}
	w.history = append(w.history, Changed{k, w.rev, rec})
	for _, p := range w.procs {
		p.pump()
	}
	return w.rev
}

// elect makes the bucket leaderless for a time.
func (w *world) elect(d time.Duration) {
	if w.election {
		return
	}
	w.note("election for %v", d)
	w.election = true
	w.after(d, func() {
		w.election = false
		limbo := w.limbo
		w.limbo = nil
		w.rng.Shuffle(len(limbo), func(i, j int) { limbo[i], limbo[j] = limbo[j], limbo[i] })
		for _, store := range limbo {
			w.after(w.between(0, 800*ms), store)
		}
	})
}

// start starts a node that wants all logs.
func (w *world) start() *proc {
	p := &proc{w: w, id: fmt.Sprintf("n%d", len(w.procs)), terms: map[string]uint64{}, renewed: map[string]time.Duration{}, fog: map[string]bool{}, shown: map[string]Changed{}}
	p.core = New(testConfig(p.id))
	w.procs = append(w.procs, p)
	p.inbox = append(p.inbox, Connected{true})
	for _, l := range w.logs {
		p.inbox = append(p.inbox, Campaign{l})
	}
	p.rewatch()
	p.tick()
	return p
}

func (p *proc) tick() {
	if p.killed {
		return
	}
	p.step()
	p.w.after(100*ms, p.tick)
}

func (p *proc) live() bool { return !p.killed && !p.stopped && !p.cut }

// post delivers events after a delay.
func (p *proc) post(d time.Duration, events ...Event) {
	p.w.after(d, func() { p.inbox = append(p.inbox, events...); p.step() })
}

// rewatch makes a new watch.
func (p *proc) rewatch() {
	p.gen++
	gen := p.gen
	p.stalled = true
	p.w.after(p.w.between(5*ms, 100*ms), func() {
		switch {
		case p.killed || gen != p.gen:
		case p.cut || p.w.election:
			p.rewatch()
		default:
			p.stalled, p.skip, p.seen = false, false, len(p.w.history)
			all := []Event{Watching{}}
			for k, e := range p.w.entries {
				all = append(all, Changed{k, e.rev, e.rec})
			}
			slices.SortFunc(all[1:], func(a, b Event) int { return int(a.(Changed).Rev) - int(b.(Changed).Rev) })
			p.next = p.w.now + p.w.between(ms, 30*ms)
			p.post(p.next-p.w.now, append(all, Complete{})...)
		}
	})
}

// pump schedules the delivery of the next change.
func (p *proc) pump() {
	if p.killed || p.cut || p.stalled || p.seen >= len(p.w.history) {
		return
	}
	gen := p.gen
	p.next = max(p.next, p.w.now+p.w.between(ms, 30*ms))
	p.w.after(p.next-p.w.now, func() {
		if gen != p.gen || p.killed || p.cut || p.stalled {
			return
		}
		for p.seen < len(p.w.history) {
			c := p.w.history[p.seen]
			p.seen++
			if !p.skip || p.w.entries[c.Key].rev == c.Rev {
				p.inbox = append(p.inbox, c)
			}
		}
		p.skip = false
		p.step()
	})
}

// step runs the core and checks the result.
func (p *proc) step() {
	if p.killed || p.stopped {
		return
	}
	events := p.inbox
	p.inbox = nil
	acts := p.core.Step(p.w.now, time.UnixMilli(1e12), events...)
	for _, e := range events {
		if c, ok := e.(Changed); ok && c.Rev > p.shown[c.Key].Rev {
			p.shown[c.Key] = c
		}
	}
	for _, a := range acts {
		switch a := a.(type) {
		case Write:
			p.write(a)
		case Ping:
			p.ping(a.Node)
		case Rewatch:
			p.w.note("%s rewatches", p.id)
			p.rewatch()
		case Began:
			p.begin(a)
		case Leave:
			p.w.moves++
			p.w.note("%s leaves %s", p.id, a.Log)
			if !p.never {
				p.post(p.w.between(10*ms, 300*ms), Resign(a))
			}
		case Lost:
			p.w.note("%s lost %s %d: %s", p.id, a.Log, a.Term, a.Reason)
			if p.terms[a.Log] != a.Term {
				p.w.fatalf("%s lost term %d of %s, which it did not have", p.id, a.Term, a.Log)
			}
			delete(p.terms, a.Log)
		}
	}
	p.check()
}

func (p *proc) begin(a Began) {
	w := p.w
	w.began++
	w.note("%s began %s %d", p.id, a.Log, a.Term)
	i, ok := slices.BinarySearchFunc(w.history, a.Term, func(c Changed, rev uint64) int { return int(c.Rev) - int(rev) })
	if !ok || w.history[i].Key != LogKey(a.Log) || w.history[i].Record == nil || w.history[i].Record.Node != p.id {
		w.fatalf("%s began term %d of %s, and the bucket has no such record", p.id, a.Term, a.Log)
	}
	if old := p.terms[a.Log]; old != 0 {
		w.fatalf("%s began term %d of %s within term %d", p.id, a.Term, a.Log, old)
	}
	p.terms[a.Log] = a.Term
	p.fog[a.Log] = false
	if w.chance(.3) {
		p.post(w.between(0, time.Second), Announce{a.Log, a.Term, "ready"})
	}
}

// check checks what a node may believe after a step.
func (p *proc) check() {
	for log, term := range p.terms {
		if c := p.shown[LogKey(log)]; c.Rev > term && (c.Record == nil || c.Record.Node != p.id) {
			p.w.fatalf("%s believes to own %s in term %d, but was shown revision %d of another writer", p.id, log, term, c.Rev)
		}
		if age := p.w.now - p.renewed[log]; age >= p.core.cfg.TTL {
			p.w.fatalf("%s believes to own %s, whose newest stored renewal was sent %v ago", p.id, log, age)
		}
	}
}

// write is a write on its way to the bucket and back.
func (p *proc) write(a Write) {
	w, sent, up := p.w, p.w.now, p.w.up
	log, isLog := logOf(a.Key)
	there, back := w.between(ms, 20*ms), w.between(ms, 20*ms)
	lost, unanswered := false, false
	if w.faulty {
		if w.chance(.01) {
			there = w.between(0, 4*time.Second)
		}
		if w.chance(.01) {
			back = w.between(0, 4*time.Second)
		}
		lost, unanswered = w.chance(.005), w.chance(.005)
	}
	if p.cut {
		p.fog[log] = true
		p.post(0, Answered{ID: a.ID, Outcome: Failed})
		return
	}
	if lost {
		p.fog[log] = true
		return
	}
	var store func()
	store = func() {
		if w.election {
			p.fog[log] = true
			if w.chance(.5) {
				w.limbo = append(w.limbo, store)
			}
			return
		}
		out := Answered{ID: a.ID, Outcome: Refused}
		if now := w.entries[a.Key]; a.Expect == Any || now.rev == a.Expect {
			if isLog && a.Record.Node == p.id && a.Record.Term == 0 {
				w.judge(p, a.Key, now, sent, up)
			}
			rec := a.Record
			out.Outcome, out.Rev = Stored, w.put(a.Key, &rec, p.core.cfg.TTL)
			switch {
			case !isLog:
				p.beats = append(p.beats, w.up)
			default:
				p.renewed[log] = max(p.renewed[log], sent)
			}
		}
		term := p.terms[log]
		late := unanswered || p.cut || w.now+back-sent >= p.core.cfg.Answer
		if late {
			p.fog[log] = true
		}
		if unanswered || p.cut {
			return
		}
		decisive := isLog && out.Outcome == Refused && a.Record.Term != 0 && !late
		w.after(back, func() {
			decisive = decisive && !p.killed && !p.stopped && !p.fog[log] && p.terms[log] == a.Record.Term && w.now-sent < p.core.cfg.Answer
			p.inbox = append(p.inbox, out)
			p.step()
			if decisive && term != 0 && p.terms[log] == a.Record.Term {
				w.fatalf("%s believes to own %s after its renewal was refused", p.id, log)
			}
		})
	}
	w.after(there, store)
}

// judge checks an acquisition that is stored now: the owner before must have been dead for the
// writer when it decided.
func (w *world) judge(by *proc, k string, now entry, sent, up time.Duration) {
	if now.rec == nil || now.rec.Node == "" || now.rec.Node == by.id {
		return
	}
	victim := w.find(now.rec.Node)
	if victim == nil {
		return
	}
	w.note("%s steals %s from %s, decided at %v", by.id, k, victim.id, sent)
	const window = 2500 * ms
	if victim.killed || victim.cut || victim.lostAt > 0 && sent-victim.lostAt < window {
		return
	}
	// The longest time between stored heartbeats that ended in the window, or did not end.
	longest, last := time.Duration(0), time.Duration(0)
	for _, b := range victim.beats {
		if b > up {
			break
		}
		if b >= up-window {
			longest = max(longest, b-last)
		}
		last = b
	}
	longest = max(longest, up-last)
	if longest < by.core.cfg.DeadAfter-2*by.core.cfg.Heartbeat {
		w.fatalf("%s stole %s from %s, which wrote all its heartbeats (longest pause %v)", by.id, k, victim.id, longest)
	}
}

func (w *world) find(id string) *proc {
	for _, p := range w.procs {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (p *proc) ping(id string) {
	w := p.w
	target := w.find(id)
	w.after(w.between(ms, 20*ms), func() {
		switch {
		case target == nil:
			p.post(w.between(ms, 20*ms), Pinged{id, true})
		case p.cut, target.stopped, target.cut && w.chance(.3):
		case target.killed, target.cut:
			p.post(w.between(ms, 20*ms), Pinged{id, true})
		default:
			p.post(w.between(ms, 20*ms), Pinged{id, false})
		}
	})
}

func (p *proc) stop(d time.Duration) {
	p.w.note("stop %s for %v", p.id, d)
	p.stopped = true
	p.w.after(d, func() { p.stopped = false; p.step() })
}

func (p *proc) kill() {
	p.w.note("kill %s", p.id)
	p.killed, p.terms = true, nil
}

func (p *proc) disconnect(d time.Duration) {
	if p.cut {
		return
	}
	p.w.note("cut %s for %v", p.id, d)
	p.cut = true
	p.post(p.w.between(0, 500*ms), Connected{false})
	p.w.after(d, func() {
		p.cut, p.skip, p.lostAt = false, true, p.w.now
		p.post(p.w.between(500*ms, 600*ms), Connected{true})
		p.pump()
	})
}
