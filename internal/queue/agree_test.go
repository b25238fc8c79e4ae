package queue

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/hidden"
	"github.com/surgetank/surgetank/internal/queue/model"
	"pgregory.net/rapid"
)

// TestModelAgrees runs random scripts on the machine and on the naive model. Machine and model must
// return the same results, the same hand-outs in the same order, and the same counts, also after
// crashes. After every command the invariants of the machine are checked. The machine's durable
// state is compared with a replay of the whole log, and with every snapshot plus a replay of the
// later entries.
//
// -rapid.checks=N runs more scripts. rapid shrinks a failure; -rapid.failfile runs it again.
func TestModelAgrees(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := newAgree(rt)
		for n := rapid.IntRange(1, 60).Draw(rt, "steps"); n > 0; n-- {
			a.any()
		}
		a.drain()
	})
}

type agree struct {
	*rig
	rt        *rapid.T
	model     *model.Model
	consumers []attached
	receipts  []mReceipt
	did       []string
	tokens    map[string]int64 // by queue and group: the newest fencing token
	slow      bool             // hand-outs do not leave the broker
	taking    bool             // a snapshot is under way
	piece     []byte
	pieceAt   uint64
}

// mReceipt is a receipt and the model's lease for it.
type mReceipt struct {
	surgetank.Receipt
	model.Lease
}

// attached is a consumer of the machine and of the model.
type attached struct {
	*model.Consumer
	id uint64
}

// poolLimits are the limits of pools in all random scripts.
var poolLimits = map[uint64]int{1: 2, 2: 1, 3: 3, 4: 2}

func newAgree(rt *rapid.T) *agree {
	a := &agree{rig: newRig(rt, Limits{RetryReserve: 1}, 7), rt: rt, model: model.New(), tokens: map[string]int64{}}
	a.model.RetryReserve = 1
	for _, name := range []string{"a", "b", "c"}[:1+a.n(3)] {
		a.configure(name)
	}
	return a
}

// n draws a number below k. rapid shrinks towards 0.
func (a *agree) n(k int) int { return rapid.IntRange(0, k-1).Draw(a.rt, "n") }

func (a *agree) yes(oneIn int) bool { return a.n(oneIn) == oneIn-1 }

// span draws a duration that is not a whole number of ticks, so that two events seldom coincide.
func (a *agree) span(seconds int) time.Duration {
	return time.Duration(a.n(seconds*4))*250*time.Millisecond + time.Duration(a.n(1000))*time.Microsecond
}

func pick[T any](a *agree, from []T) T { return from[a.n(len(from))] }

func (a *agree) queue() string { return pick(a, []string{"a", "b", "c", "a.dead", "nowhere"}) }

// both runs a command on the machine and f on the model, as one turn. Then it compares the results
// and the hand-outs.
func (a *agree) both(what string, cmd Command, f func()) {
	a.did = append(a.did, fmt.Sprintf("%s %s", relative(a.now, rigStart), what))
	var outs []model.Out
	var ended []uint64
	collect := func(o *Output) {
		for i := range o.Handouts {
			outs = append(outs, a.seen(&o.Handouts[i]))
		}
		for _, e := range o.Ended {
			ended = append(ended, e.Consumer)
		}
	}
	collect(a.step(cmd))
	a.settleDown(collect)
	a.model.Turn(a.now, f)
	a.compare(outs, ended)
}

func (a *agree) seen(h *Handout) model.Out {
	_, deaths := a.load(h)
	if strict := h.Queue.config.Group.MaxInFlight == 1 && h.Group != "" && h.Lease != 0; strict != (h.Token != 0) || strict && h.Token <= a.tokens[h.Queue.name+"/"+h.Group] {
		a.rt.Fatalf("%s/%d of group %q has the fencing token %d after %d, after:\n%s", h.Queue.name, h.Seq, h.Group, h.Token, a.tokens[h.Queue.name+"/"+h.Group], strings.Join(a.did, "\n"))
	} else if strict {
		a.tokens[h.Queue.name+"/"+h.Group] = h.Token
	}
	return model.Out{Queue: h.Queue.name, Consumer: h.Consumer, Seq: h.Seq, Group: h.Group, Attempt: h.Attempt, Redelivered: h.Redelivered,
		Leased: h.Lease != 0, Deadline: h.Deadline, Deaths: len(deaths)}
}

func (a *agree) compare(outs []model.Out, ended []uint64) {
	a.rt.Helper()
	m := a.model
	byQueue := func(x, y model.Out) int { return strings.Compare(x.Queue, y.Queue) }
	slices.SortStableFunc(outs, byQueue)
	slices.SortStableFunc(m.Outs, byQueue)
	if diff := cmp.Diff(m.Outs, outs); diff != "" {
		a.rt.Fatalf("the machine handed out other messages (-model +machine):\n%s\nafter:\n%s", diff, strings.Join(a.did, "\n"))
	}
	slices.Sort(ended)
	slices.Sort(m.Ended)
	if !slices.Equal(ended, m.Ended) {
		a.rt.Fatalf("subscriptions ended: machine %v, model %v, after:\n%s", ended, m.Ended, strings.Join(a.did, "\n"))
	}
	for _, o := range outs {
		a.did = append(a.did, fmt.Sprintf("    > %d %s/%d attempt %d", o.Consumer, o.Queue, o.Seq, o.Attempt))
		if o.Leased {
			q := a.m.byName[o.Queue]
			lease, ok := m.Lease(o.Queue, o.Seq)
			if q == nil || !ok || q.leases[o.Seq] == nil {
				continue
			}
			a.receipts = append(a.receipts, mReceipt{Receipt: surgetank.Receipt{ID: surgetank.MessageID{Queue: q.id, Seq: o.Seq}, Epoch: a.m.Epoch(), Incarnation: a.m.Incarnation(),
				Lease: q.leases[o.Seq].no}, Lease: lease})
		}
	}
	m.Outs, m.Ended = nil, nil
	a.compareState()
}

func (a *agree) compareState() {
	a.rt.Helper()
	if check(a.rt, a.m); a.rt.Failed() {
		a.rt.Fatalf("after:\n%s", strings.Join(a.did, "\n"))
	}
	var want []surgetank.QueueInfo
	for _, name := range a.model.Names() {
		want = append(want, a.model.Queues[name].Info())
	}
	var got []surgetank.QueueInfo
	for _, i := range a.m.Infos() {
		figures := surgetank.QueueInfo{Name: i.Name, Ready: i.Ready, Blocked: i.Blocked, Delayed: i.Delayed, Leased: i.Leased, Damaged: i.Damaged, Bytes: i.Bytes,
			Groups: i.Groups, Consumers: i.Consumers, OldestAge: i.OldestAge, BackingOff: i.BackingOff, NextTry: i.NextTry, Failure: i.Failure, PausedBy: i.PausedBy, PausedAt: i.PausedAt}
		*door.QueueFloor(&figures) = *door.QueueFloor(&i)
		got = append(got, figures)
	}
	slices.SortFunc(got, func(x, y surgetank.QueueInfo) int { return strings.Compare(x.Name, y.Name) })
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(surgetank.QueueInfo{}, hidden.Field[uint64]{})); diff != "" {
		a.rt.Fatalf("counts differ (-model +machine):\n%s\nafter:\n%s", diff, strings.Join(a.did, "\n"))
	}
	for _, name := range a.model.Names() {
		if why := a.model.Queues[name].Control.Differs(a.m.Control(name)); why != "" {
			a.rt.Fatalf("queue %s: %s\nafter:\n%s", name, why, strings.Join(a.did, "\n"))
		}
	}
	a.compareReasons()
	live := dump(a.m, a.now)
	if again := dump(a.replayed(len(a.log)), a.now); again != live {
		a.rt.Fatalf("replay results in another state (-live +replayed):\n%s\nafter:\n%s", cmp.Diff(live, again), strings.Join(a.did, "\n"))
	}
	for _, s := range a.snaps {
		if again := dump(a.restored(s), a.now); again != live {
			a.rt.Fatalf("the snapshot at %d results in another state (-live +restored):\n%s\nafter:\n%s", s.at, cmp.Diff(live, again), strings.Join(a.did, "\n"))
		}
	}
}

// compareReasons compares, between machine and model, why the next message of each queue waits, and
// why each single message waits.
func (a *agree) compareReasons() {
	a.rt.Helper()
	for _, name := range a.model.Names() {
		q := a.model.Queues[name]
		ask := func(o surgetank.ExplainOptions, want string) {
			a.rt.Helper()
			c := &Explain{Queue: name, Opts: o}
			c.run(a.m)
			if c.Err != nil || c.Found.Verdict != want || c.Found.Text == "" {
				a.rt.Fatalf("why %s %v: machine %q %q (%v), model %q, after:\n%s", name, o.ID, c.Found.Verdict, c.Found.Text, c.Err, want, strings.Join(a.did, "\n"))
			}
		}
		ask(surgetank.ExplainOptions{}, q.Why())
		for _, seq := range q.Numbers() {
			ask(surgetank.ExplainOptions{ID: surgetank.MessageID{Queue: a.m.byName[name].id, Seq: seq}}, q.WhyMessage(seq))
		}
	}
}

func (a *agree) any() {
	switch a.n(25) {
	case 0, 1, 2, 3, 4:
		a.publish()
	case 5, 6, 7:
		a.attach()
	case 8, 9, 10, 11, 12:
		a.settle()
	case 13, 14:
		a.wait(a.span(8))
	case 15:
		a.detach()
	case 16:
		if a.yes(4) {
			a.leave()
			break
		}
		a.admin()
	case 17:
		a.configure(pick(a, []string{"a", "b", "c", "a.dead"}))
	case 18:
		a.redrive()
	case 19:
		a.snapshot()
	case 20:
		a.crash()
	case 21:
		a.damage()
	case 22:
		a.drop()
	case 24:
		a.publishNumbered()
	case 23:
		moved := a.relocate(uint64(a.n(len(a.log)+1)), uint64(a.n(len(a.log)+2)), func() bool { return !a.yes(3) })
		a.did = append(a.did, fmt.Sprintf("relocated %d", moved))
		a.model.Turn(a.now, nil)
		a.compareState()
	}
}

func (a *agree) configure(name string) {
	c := surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: pick(a, []time.Duration{-1, time.Second, 3 * time.Second}), Jitter: -1,
		MaxAttempts: pick(a, []int{-1, 3, 1}), Budget: pick(a, []float64{0, 0, 0.5, 0.001})}}
	c.Retry.ByReason = pick(a, []map[string]surgetank.RetryRule{nil, nil,
		{"No": {Initial: 500 * time.Millisecond, MaxAttempts: 2}, "not y": {Initial: 5 * time.Second, Factor: 1}, "the lease ended": {Initial: surgetank.NoDelay, MaxAttempts: surgetank.Unlimited}},
		{"its consumer": {Initial: 4 * time.Second, Max: time.Second}, "it was given up": {Initial: 9 * time.Second}}})
	c.Group = surgetank.GroupConfig{MaxInFlight: a.n(4), Fair: a.yes(2), Rate: pick(a, []surgetank.Rate{0, 0, 2, 0.3})}
	c.Level = surgetank.LevelConfig{MaxInFlight: pick(a, []int{0, 0, 3}), Rate: pick(a, []surgetank.Rate{0, 0, 3}), Burst: a.n(3)}
	if c.Group.Fair && a.yes(2) {
		c.Group.Weights = pick(a, []map[string]int{{"g": 3}, {"g": 2, "*": 3}, {"h": 1000, "i": 2}})
	}
	c.Level.FreshShare, c.Level.FreshAge = pick(a, []float64{0, 0, 0.3, 1}), pick(a, []time.Duration{0, 2 * time.Second, 5 * time.Second})
	if a.yes(3) {
		c.Level.Adaptive = surgetank.AdaptiveConfig{On: true, Min: a.n(3), Max: 2 + a.n(4), Tolerance: pick(a, []float64{0, 1.2, 3})}
	}
	c.Level.Breaker, c.Level.Target = pick(a, []surgetank.BreakerMode{"", "", "off", "errors"}), pick(a, []string{"", "", "t"})
	c.PriorityStep = pick(a, []time.Duration{0, 0, 2 * time.Second, time.Second / 2})
	c.DeadLetter = pick(a, []string{"", surgetank.DeadLetterDrop, name + "-x.dead", "b", "a"})
	c.DedupWindow = pick(a, []time.Duration{0, 5 * time.Second, 2 * time.Second})
	c.TTL = pick(a, []time.Duration{0, 0, 6 * time.Second})
	c.MaxMessages, c.MaxBytes = pick(a, []int64{0, 0, 3}), pick(a, []int64{0, 0, 20})
	c.MaxConsumers = pick(a, []int{0, 0, 0, 2})
	c.Overflow = pick(a, []surgetank.Overflow{surgetank.OverflowReject, surgetank.OverflowDropOldest, surgetank.OverflowDeadLetter})
	c.MaxPriority = pick(a, []uint8{0, 3, 200})
	c.Lease = pick(a, []time.Duration{2 * time.Second, 10 * time.Second})
	c.Transient = a.yes(12)
	if a.yes(2) {
		c.Coalesce = surgetank.CoalesceConfig{By: pick(a, []string{"header:" + keyHeader, "header:" + keyHeader, "group"}), Keep: pick(a, []surgetank.Keep{surgetank.KeepLast, surgetank.KeepFirst}),
			Window: pick(a, []time.Duration{0, 0, 3 * time.Second}), MaxWait: pick(a, []time.Duration{0, surgetank.NoMaxWait, 4 * time.Second})}
	}
	if name == "a.dead" {
		c.DeadLetter = pick(a, []string{"", surgetank.DeadLetterDrop, "a"})
	}
	d := &Declare{Name: name, Config: c}
	itself := c.DeadLetter == name && c.TTL > 0
	a.both(fmt.Sprintf("declare %s %+v", name, c), d, func() {
		if !itself {
			a.model.Declare(name, c)
		}
	})
	if itself != (surgetank.CodeOf(d.Err) == surgetank.CodeInvalid) || !itself && d.Err != nil {
		a.rt.Fatal(d.Err)
	}
}

func (a *agree) message() surgetank.Message {
	m := surgetank.Message{Body: make([]byte, a.n(12))}
	for i := range m.Body {
		m.Body[i] = 'x'
	}
	m.Group = pick(a, []string{"", "g", "h", "i"})
	m.Priority = pick(a, []uint8{0, 0, 2, 5, 130})
	m.DedupID = pick(a, []string{"", "1", "2"})
	if k := pick(a, []string{"", "g", "1", "2"}); k != "" {
		m.Headers = []surgetank.Header{{Name: keyHeader, Value: k}}
	}
	if a.yes(5) {
		m.Delay = a.span(4)
	}
	if a.yes(5) {
		m.TTL = a.span(4) + 1
	}
	return m
}

func (a *agree) targets() []string {
	if a.yes(6) {
		return []string{pick(a, []string{"a", "nowhere", "b"}), pick(a, []string{"b", "a"}), "c"}
	}
	return []string{pick(a, []string{"a", "b", "c"})}
}

// modelKeys returns the coalescing keys of a message in the form of the model.
func modelKeys(in *Incoming) (keys []model.Key) {
	for _, k := range in.Keys {
		key := model.Key{Group: k.Group}
		if k.Hash != (CoalesceKey{}) {
			key.ID = string(k.Hash[:])
		}
		keys = append(keys, key)
	}
	return keys
}

func (a *agree) publish() {
	msg, names := a.message(), a.targets()
	c := a.withKeys(publish(msg, names...))
	var code surgetank.Code
	var seq uint64
	var dup bool
	a.both(fmt.Sprintf("publish %v %+v", names, msg), c, func() { code, seq, dup = a.model.Publish(&msg, names, nil, modelKeys(&c.Msgs[0]), false) })
	if r := c.Results[0]; surgetank.CodeOf(r.Err) != code || r.ID.Seq != seq || r.Duplicate != dup {
		a.rt.Fatalf("publish: machine %+v, model %v %d %v, after:\n%s", r, code, seq, dup, strings.Join(a.did, "\n"))
	}
}

// publishNumbered publishes a few messages of a publisher. Their numbers can be known or new, and
// can have gaps.
func (a *agree) publishNumbered() {
	id := pick(a, []string{"one-------------", "two-------------"})
	ps := make([]surgetank.Publishing, 1+a.n(4))
	names := a.targets()
	for i, first := 0, uint64(1+a.n(12)); i < len(ps); i++ {
		ps[i] = surgetank.Publishing{Queues: names, Message: a.message(), Publisher: id, Sequence: first + uint64(i)}
		if a.yes(4) {
			names, first = a.targets(), uint64(1+a.n(12))
		}
	}
	c := a.withKeys(publishAll(ps...))
	a.both(fmt.Sprintf("publish numbered %+v", ps), c, func() {
		for i := range ps {
			code, seq, dup := a.model.PublishNumbered(&ps[i], nil, modelKeys(&c.Msgs[i]))
			r := c.Results[i]
			if dup && r.ID.Seq == 0 { // the machine need not know the position of the first copy any more
				seq = 0
			}
			if surgetank.CodeOf(r.Err) != code || r.ID.Seq != seq || r.Duplicate != dup {
				a.rt.Fatalf("publish %d: machine %+v, model %v %d %v, after:\n%s", i, r, code, seq, dup, strings.Join(a.did, "\n"))
			}
		}
	})
}

func (a *agree) attach() {
	o := door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: a.n(5), ManualCredit: a.yes(4), NoAck: a.yes(6), Exclusive: a.yes(10), Single: a.yes(6), Priority: a.n(3), Lease: pick(a, []time.Duration{0, time.Second, surgetank.LeaseForever})}, GroupRun: a.n(4), Pool: 0, OwnLevel: a.yes(3)}
	c := &Attach{Queue: a.queue(), Opts: o, Once: a.yes(5), Now: a.yes(5)}
	if c.Now {
		c.Once = false
	}
	if a.yes(3) {
		o.Pool = uint64(1 + a.n(4))
		c.Opts = o
	}
	if c.Once || c.Now {
		o.ManualCredit = true
		c.Opts = o
	}
	var mc *model.Consumer
	var code surgetank.Code
	next := a.m.nextCons + 1
	if o.Pool != 0 && a.m.pools[o.Pool] == nil {
		// The limit is set when a pool has members. So the consumer attaches without credit, and
		// the credit is added after the limit.
		c.Opts.Credit = 0
	}
	a.both(fmt.Sprintf("attach %d to %s %+v once=%v now=%v", next, c.Queue, o, c.Once, c.Now), c, func() {
		mc, code = a.model.Attach(c.Queue, next, c.Opts, c.Once, c.Now)
	})
	if surgetank.CodeOf(c.Err) != code {
		a.rt.Fatalf("attach: machine %v, model %v, after:\n%s", c.Err, code, strings.Join(a.did, "\n"))
	}
	if code == "" {
		a.consumers = append(a.consumers, attached{mc, c.Consumer})
		if o.Pool != 0 {
			a.both("pool limit", &PoolLimit{Pool: o.Pool, Limit: poolLimits[o.Pool]}, func() { a.model.PoolLimit(o.Pool, poolLimits[o.Pool]) })
		}
	}
}

func (a *agree) settle() {
	if len(a.receipts) == 0 {
		return
	}
	var items []surgetank.Settlement
	var which []mReceipt
	for range 1 + a.n(3) {
		i := len(a.receipts) - 1 - a.n(len(a.receipts))
		which = append(which, a.receipts[i])
		items = append(items, surgetank.Settlement{Receipt: a.receipts[i].Receipt, Op: pick(a, []surgetank.SettleOp{surgetank.Ack, surgetank.Nack, surgetank.Reject, surgetank.Extend}),
			Delay: pick(a, []time.Duration{0, -1, 1500 * time.Millisecond}), Lease: 5 * time.Second, Uncounted: a.yes(3), Reason: pick(a, []string{"", "no", "not yet"}),
			Target: pick(a, []surgetank.TargetReport{0, 0, surgetank.TargetDown, surgetank.TargetBusy}), RetryAfter: a.span(3), Elapsed: pick(a, []time.Duration{0, time.Millisecond, 3 * time.Second})})
	}
	if a.yes(4) {
		a.transact(items, which)
		return
	}
	c := &Settle{Items: items, Results: make([]error, len(items)), At: pick(a, []int64{0, a.now, a.now - 500_000_000})}
	var want []surgetank.Code
	a.both(fmt.Sprintf("settle %+v", items), c, func() {
		for i, r := range which {
			if !a.model.Lives(r.Lease) {
				want = append(want, surgetank.CodeLeaseLost)
				continue
			}
			want = append(want, "")
			r.Settle(&items[i], c.At)
		}
	})
	for i, err := range c.Results {
		if surgetank.CodeOf(err) != want[i] {
			a.rt.Fatalf("settle %d: machine %v, model %v, after:\n%s", i, err, want[i], strings.Join(a.did, "\n"))
		}
	}
}

func (a *agree) transact(items []surgetank.Settlement, which []mReceipt) {
	c := &Transact{Settle: Settle{Items: items}}
	var ps []surgetank.Publishing
	for range a.n(4) {
		ps = append(ps, surgetank.Publishing{Queues: a.targets(), Message: a.message()})
	}
	p := a.withKeys(publishAll(ps...))
	c.Publish = *p
	var code surgetank.Code
	a.both(fmt.Sprintf("transact %+v %+v", ps, items), c, func() {
		leases := make([]model.Lease, len(which))
		for i, r := range which {
			leases[i] = r.Lease
		}
		if code = a.model.Refused(ps, leases); code != "" {
			return
		}
		for i, r := range which {
			r.Settle(&items[i], 0)
		}
		for i := range ps {
			a.model.Publish(&ps[i].Message, ps[i].Queues, nil, modelKeys(&c.Publish.Msgs[i]), true)
		}
	})
	if surgetank.CodeOf(c.Err) != code {
		a.rt.Fatalf("transact: machine %v, model %q, after:\n%s", c.Err, code, strings.Join(a.did, "\n"))
	}
}

// leave lets pending hand-outs leave the broker. It draws whether later hand-outs leave at once.
func (a *agree) leave() {
	a.slow = a.yes(2)
	a.rig.slow = a.slow
	a.did = append(a.did, fmt.Sprintf("hand-outs leave, later ones slowly: %v", a.slow))
	a.m.Released(math.MaxUint64, a.now)
	a.model.Released(math.MaxUint64, a.now)
}

// wait moves both clocks forward, with a stop at each event that becomes due.
func (a *agree) wait(d time.Duration) {
	a.did = append(a.did, fmt.Sprintf("%s wait %v", relative(a.now, rigStart), d))
	var outs []model.Out
	var ended []uint64
	a.advance(d, func(o *Output) {
		a.model.Turn(a.now, nil)
		for i := range o.Handouts {
			outs = append(outs, a.seen(&o.Handouts[i]))
		}
		for _, e := range o.Ended {
			ended = append(ended, e.Consumer)
		}
	})
	a.model.Turn(a.now, nil)
	for i := range a.step().Handouts {
		a.rt.Fatalf("a hand-out of %d came late", i)
	}
	a.compare(outs, ended)
}

func (a *agree) detach() {
	if len(a.consumers) == 0 {
		return
	}
	mc := pick(a, a.consumers)
	switch a.n(3) {
	case 0:
		n := a.n(6) - 2
		a.both(fmt.Sprintf("credit %d %d", mc.id, n), &Credit{Consumer: mc.id, N: n}, func() { a.model.Credit(mc.Consumer, n) })
	case 1:
		a.both(fmt.Sprintf("stop %d", mc.id), &Stop{Consumer: mc.id}, func() { a.model.Stop(mc.Consumer) })
	default:
		c := &Detach{Consumer: mc.id, All: a.yes(2)}
		var back []uint64
		for _, r := range a.receipts {
			if r.Holds(mc.Consumer) && a.model.Lives(r.Lease) && a.yes(2) {
				c.Return = append(c.Return, r.Receipt)
				back = append(back, r.Seq())
			}
		}
		a.both(fmt.Sprintf("detach %d back %v all=%v", mc.id, back, c.All), c, func() { a.model.Detach(mc.Consumer, back, c.All) })
	}
}

func (a *agree) admin() {
	name := a.queue()
	q := a.model.Queues[name]
	code := surgetank.Code("")
	if q == nil {
		code = surgetank.CodeNotFound
	}
	var err error
	var n, want int64
	switch a.n(8) {
	case 6, 7:
		c := &ReportTarget{Name: name, Report: door.TargetReport{Up: a.yes(3), RetryAfter: time.Duration(a.n(3)) * time.Second}}
		a.both(fmt.Sprintf("report %s %+v", name, c.Report), c, func() {
			if q != nil {
				a.model.ReportTarget(q, c.Report)
			}
		})
		err = c.Err
	case 4, 5:
		c := &SetBreaker{Name: name, Open: a.yes(2), By: "ann"}
		a.both(fmt.Sprintf("breaker %s %v", name, c.Open), c, func() {
			if q != nil {
				code = a.model.Breaker(q, c.Open, c.By, "")
			}
		})
		err = c.Err
	case 0:
		c := &Purge{Name: name}
		a.both("purge "+name, c, func() {
			if q != nil {
				want = a.model.Purge(q, c.Last.From, c.Last.Below)
			}
		})
		err, n = c.Err, c.Purged
	case 1, 2:
		c := &Pause{Name: name, Paused: a.yes(2), By: pick(a, []string{"", "ann", "bob"})}
		if a.yes(2) {
			c.For = time.Duration(a.n(20)) * time.Second
		}
		a.both(fmt.Sprintf("pause %s %v for %v", name, c.Paused, c.For), c, func() {
			if q != nil {
				a.model.Pause(q, c.Paused, c.For, c.By)
			}
		})
		err = c.Err
	default:
		c := &Delete{Name: name}
		a.both("delete "+name, c, func() {
			if q != nil {
				want = a.model.Delete(q)
			}
		})
		err, n = c.Err, c.Removed
	}
	if surgetank.CodeOf(err) != code || n != want {
		a.rt.Fatalf("%s: machine %v %d, model %v %d, after:\n%s", name, err, n, code, want, strings.Join(a.did, "\n"))
	}
}

// damage makes a message unreadable: a message that was handed out, or any message of a queue.
func (a *agree) damage() {
	c := &Quarantine{What: "its bytes are wrong"}
	name, lease := "", model.Lease{}
	if n := len(a.receipts); n > 0 && a.yes(2) {
		r := a.receipts[n-1-a.n(n)]
		c.ID, c.Lease, lease = r.ID, r.Receipt.Lease, r.Lease
		if a.yes(2) {
			c.Retry = 3 * time.Second // an I/O error; wrong bytes are not read again
		}
	} else if q := a.m.byName[a.queue()]; q != nil {
		c.ID = surgetank.MessageID{Queue: q.id, Seq: q.Floor() + uint64(a.n(5))}
	}
	if q := a.m.byID[c.ID.Queue]; q != nil {
		name = q.name
	}
	done := false
	a.both(fmt.Sprintf("unreadable %s %+v", name, c), c, func() { done = a.model.Quarantine(name, c.ID.Seq, lease, c.Retry) })
	if c.Done != done {
		a.rt.Fatalf("unreadable: machine %v, model %v, after:\n%s", c.Done, done, strings.Join(a.did, "\n"))
	}
}

func (a *agree) drop() {
	name := a.queue()
	c, want := &DropDamaged{Name: name}, int64(0)
	a.both("drop "+name, c, func() {
		if q := a.model.Queues[name]; q != nil {
			want = a.model.DropDamaged(q)
		}
	})
	if c.Dropped != want {
		a.rt.Fatalf("drop of %s: machine %d, model %d, after:\n%s", name, c.Dropped, want, strings.Join(a.did, "\n"))
	}
}

func (a *agree) redrive() {
	from := pick(a, []string{"a.dead", "b.dead", "a-x.dead", "b-x.dead", "c.dead", "a"})
	q := a.model.Queues[from]
	o := surgetank.RedriveOptions{To: pick(a, []string{"", "", "b", "nowhere"}), Max: int64(a.n(3)), DryRun: a.yes(4),
		Reason: pick(a, []string{"", "", surgetank.ReasonRejected}), Queue: pick(a, []string{"", "", "a"})}
	c := &Redrive{From: from, Opts: o}
	var want surgetank.RedriveResult
	bad := q == nil || o.To != "" && a.model.Queues[o.To] == nil
	a.both(fmt.Sprintf("redrive %s %+v", from, o), c, func() {
		if !bad {
			want = a.model.Redrive(q, o)
		}
	})
	if (c.Err != nil) != bad || c.Result != want {
		a.rt.Fatalf("redrive: machine %v %+v, model %+v, after:\n%s", c.Err, c.Result, want, strings.Join(a.did, "\n"))
	}
}

// snapshot reads only the next piece of a snapshot, so that the machine works while a snapshot is
// under way.
func (a *agree) snapshot() {
	if !a.taking {
		a.taking, a.piece, a.pieceAt = true, nil, uint64(len(a.log))
		a.m.StartSnapshot(a.pieceAt)
		a.did = append(a.did, fmt.Sprintf("snapshot of %d begins", a.pieceAt))
	}
	for range a.n(4) {
		p, last := a.m.SnapshotNext(1 + a.n(100))
		a.piece = append(a.piece, p...)
		if last {
			a.taking = false
			a.snaps = append(a.snaps, rigSnapshot{a.pieceAt, a.piece})
			a.did = append(a.did, fmt.Sprintf("snapshot of %d is whole", a.pieceAt))
			a.compareState()
			return
		}
	}
}

// crash opens a new machine, from a snapshot if there is one.
func (a *agree) crash() {
	if a.yes(2) {
		a.step(&CloseEpoch{})
		a.model.Rest()
		a.did = append(a.did, "clean stop")
		if a.yes(2) && !a.taking {
			a.takeSnapshot(64)
		}
	}
	if n := len(a.snaps); n > 0 && a.yes(2) {
		a.m = a.restored(a.snaps[a.n(n)])
	} else {
		a.m = a.replayed(len(a.log))
	}
	a.taking, a.consumers, a.receipts = false, nil, nil
	a.model.Crash(a.now)
	a.model.Opened(a.now)
	a.both("crash", &OpenEpoch{Epoch: a.m.Epoch() + 1, Incarnation: 1000 + a.m.Epoch()}, nil)
}

// drain settles all messages and checks that no memory is left in use.
func (a *agree) drain() {
	a.crash()
	for _, q := range a.m.sorted() {
		name, cfg := q.name, surgetank.QueueConfig{Retry: surgetank.RetryConfig{Jitter: -1}}
		a.both("open up "+name, &Declare{Name: name, Config: cfg}, func() { a.model.Declare(name, cfg) })
	}
	a.wait(time.Minute)
	for _, q := range a.m.sorted() {
		c := &Attach{Queue: q.name, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, NoAck: true}}}
		next := a.m.nextCons + 1
		a.both("drain "+q.name, c, func() { a.model.Attach(c.Queue, next, c.Opts, false, false) })
	}
	a.wait(time.Minute)
	for _, q := range a.m.sorted() {
		if i := q.info(); i.Ready+i.Blocked+i.Delayed+i.Leased != 0 || i.Groups != 0 {
			a.rt.Fatalf("queue %s does not drain: %s %q", q.name, infoLine(&i), i.Waiting)
		}
		if len(q.slots.chunks) != 0 || len(q.notes) != 0 || len(q.leases) != 0 || len(q.backing) != 0 || q.slots.keys.used != 0 || q.slots.keys.found != 0 || len(q.far) != 0 || len(q.returned) != 0 ||
			len(q.freeFlows)+1 < len(q.flows) {
			a.rt.Fatalf("queue %s is empty and has %d chunks, %d notes, %d leases, %d flows of which %d are free", q.name, len(q.slots.chunks),
				len(q.notes), len(q.leases), len(q.flows), len(q.freeFlows))
		}
	}
	if _, live := a.m.LogShare(); live != 0 {
		a.rt.Fatalf("%d bytes of the log are live, but no message is live", live)
	}
}
