package queue

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// mover moves a queue from one machine to another, as the router does.
type mover struct {
	t        *testing.T
	src, dst *rig
	again    bool // a pass found differences
}

// agreed compares a machine with the machines that its log and its snapshots lead to.
func agreed(t *testing.T, what string, r *rig) {
	t.Helper()
	check(t, r.m)
	want := dump(r.m, r.now)
	if got := dump(r.replayed(len(r.log)), r.now); got != want {
		t.Fatalf("%s: the replayed machine is\n%s\nwant\n%s", what, got, want)
	}
	r.takeSnapshot(100)
	for _, s := range r.snaps {
		if got := dump(r.restored(s), r.now); got != want {
			t.Fatalf("%s: the machine from the snapshot at %d is\n%s\nwant\n%s", what, s.at, got, want)
		}
	}
}

func (m *mover) do(r *rig, s *door.MoveStep) *MoveStep {
	m.t.Helper()
	c := &MoveStep{MoveStep: s}
	r.step(c)
	if c.Err != nil {
		m.t.Fatalf("step %d: %v", s.Op, c.Err)
	}
	agreed(m.t, fmt.Sprintf("after step %d", s.Op), r)
	return c
}

// pass copies the differences of a queue, in pieces.
func (m *mover) pass(name string) (differ int) {
	for from := uint64(0); ; {
		out := m.do(m.src, &door.MoveStep{Op: door.MoveOutline, Queue: name, From: from})
		same := m.do(m.dst, &door.MoveStep{Op: door.MoveCompare, Queue: name, From: from, Last: out.Last, Outline: out.Outline})
		differ += len(same.Seqs)
		read := m.do(m.src, &door.MoveStep{Op: door.MoveRead, Queue: name, Seqs: same.Seqs})
		for i := range read.Read {
			x := &read.Read[i]
			s, deaths := m.src.load(&x.Handout)
			x.Message, x.Deaths, x.MoveCopied.Time = s.Message, deaths, s.Time
			x.Message.Group = x.Group
			read.Copies = append(read.Copies, x.MoveCopied)
		}
		m.do(m.dst, &door.MoveStep{Op: door.MoveCopy, Queue: name, Copies: read.Copies})
		if from = out.Next; from == 0 {
			return differ
		}
	}
}

func (m *mover) stage(name string) {
	q := m.src.m.byName[name]
	m.do(m.dst, &door.MoveStep{Op: door.MoveStage, Queue: name, ID: q.id, Config: q.config})
}

// finish freezes the queue and lets it arrive.
func (m *mover) finish(name string, to int) {
	freeze := m.do(m.src, &door.MoveStep{Op: door.MoveFreeze, Queue: name, To: to})
	arrive := &door.MoveStep{Op: door.MoveArrive}
	for _, name := range freeze.Names {
		if m.dst.m.byName[door.Arriving(name)] == nil {
			m.stage(name)
		}
		m.pass(name)
		if n := m.pass(name); n != 0 {
			m.t.Fatalf("%d messages of the frozen queue %s differ after a pass", n, name)
		}
		pack := m.do(m.src, &door.MoveStep{Op: door.MovePack, Queue: name})
		m.do(m.dst, &door.MoveStep{Op: door.MoveUnpack, Queue: name, Frames: pack.Frames})
		arrive.Names, arrive.Configs = append(arrive.Names, name), append(arrive.Configs, pack.Config)
	}
	m.do(m.dst, arrive)
	m.do(m.src, &door.MoveStep{Op: door.MoveDepart, Queue: name})
}

func shardRig(t *testing.T, index int) *rig {
	r := newRig(t, Limits{Shards: 2, TurnBytes: 200}, uint64(index)+1)
	r.step(&SetMeta{Namespace: door.ShardNamespace, Name: door.ShardIndex, Value: strconv.AppendInt(nil, int64(index), 10)})
	return r
}

// TestMoveAgrees: at each step of a move, the machines are what their logs and snapshots say. The
// queue has messages in all states, and changes while it is copied.
func TestMoveAgrees(t *testing.T) {
	src, dst := shardRig(t, 0), shardRig(t, 1)
	dst.open() // another epoch and incarnation than the source
	dst.now += int64(time.Second)
	src.step(&Declare{Name: "q", Config: surgetank.QueueConfig{DedupWindow: time.Hour, MaxPriority: 9, TTL: 10 * time.Hour, Retry: surgetank.RetryConfig{MaxAttempts: 2, Initial: time.Minute}, Group: surgetank.GroupConfig{MaxInFlight: 1}}})
	src.step(&Declare{Name: "stays"})
	n := uint64(0)
	send := func(m surgetank.Message) {
		n++
		m.Body = fmt.Append(nil, n)
		c := publishAll(surgetank.Publishing{Queues: []string{"q"}, Message: m, Publisher: "publisher-of-the-test", Sequence: n})
		src.step(c)
		if c.Results[0].Err != nil {
			t.Fatal(c.Results[0].Err)
		}
	}
	sub := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 3}}}
	for i := range 200 {
		send(surgetank.Message{Group: fmt.Sprint("g", i%5), Priority: uint8(i % 3), Delay: time.Duration(i%4) * time.Minute, DedupID: fmt.Sprint(i)})
	}
	m := &mover{t: t, src: src, dst: dst}
	m.stage("q")
	if n := m.pass("q"); n != 200 {
		t.Fatalf("the first pass found %d differences", n)
	}
	out := src.step(sub)
	if sub.Err != nil || len(out.Handouts) == 0 {
		t.Fatal(sub.Err, len(out.Handouts))
	}
	settle := func(o *Handout, op surgetank.SettleOp) {
		c := &Settle{Items: []surgetank.Settlement{{Receipt: receiptOf(src, o), Op: op, Delay: surgetank.RetryBackoff, Reason: "no"}}, Results: make([]error, 1)}
		next := src.step(c)
		if c.Results[0] != nil {
			t.Fatal(c.Results[0])
		}
		out.Handouts = append(out.Handouts, next.Handouts...)
	}
	for i := 0; i < min(60, len(out.Handouts)); i++ {
		settle(&out.Handouts[i], [...]surgetank.SettleOp{surgetank.Ack, surgetank.Nack, surgetank.Reject}[i%3])
	}
	send(surgetank.Message{Group: "new"})
	src.advance(90*time.Second, func(o *Output) {})
	dst.now = src.now + 1
	if differ := m.pass("q"); differ == 0 {
		t.Fatal("the second pass found no differences")
	}
	m.finish("q", 1)
	q := dst.m.byName["q"]
	if q == nil || q.id != 1 || src.m.byName["q"] != nil || dst.m.byName["q.dead"] == nil || src.m.byName["stays"] == nil {
		t.Fatal("the queue is not where it belongs")
	}
	if next := dst.m.nextQueue; next>>surgetank.ShardBits != 1 {
		t.Errorf("the next queue gets the number %d", next)
	}
	dst.step(&Declare{Name: "another"}) // its number has the shard
	list := &Info{}
	dst.step(list)
	if len(list.Infos) != 3 {
		t.Errorf("%d queues are listed", len(list.Infos))
	}
	repeat := publishAll(surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("x")}, Publisher: "publisher-of-the-test", Sequence: 7},
		surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("x")}, Publisher: "publisher-of-the-test", Sequence: n + 1},
		surgetank.Publishing{Queues: []string{"q"}, Message: surgetank.Message{Body: []byte("x")}, Publisher: "publisher-of-the-test", Sequence: n + 1})
	dst.step(repeat)
	if r := repeat.Results; !r[0].Duplicate || r[1].Err != nil || r[1].Duplicate || !r[2].Duplicate {
		t.Errorf("%+v", r)
	}
	agreed(t, "at the end", dst)
	back := &mover{t: t, src: dst, dst: src}
	back.stage("q")
	back.finish("q", 0)
	agreed(t, "back again", src)
	repeat = publishAll(*repeat.Msgs[0].Publishing, *repeat.Msgs[1].Publishing)
	src.step(repeat)
	for i, res := range repeat.Results {
		if !res.Duplicate {
			t.Errorf("after two moves, repeat %d is %+v", i, res)
		}
	}
}

func receiptOf(r *rig, o *Handout) surgetank.Receipt {
	return surgetank.Receipt{ID: o.ID, Epoch: r.m.Epoch(), Lease: o.Lease, Incarnation: r.m.Incarnation()}
}

// TestFrozenQueueIsStill: nothing changes a frozen queue, and after a thaw it works again.
func TestFrozenQueueIsStill(t *testing.T) {
	r := shardRig(t, 0)
	r.step(&Declare{Name: "x", Config: surgetank.QueueConfig{DeadLetter: "q"}})
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{MaxMessages: 5, Overflow: surgetank.OverflowDropOldest}})
	r.step(publish(surgetank.Message{Body: []byte("1"), TTL: time.Minute}, "q"), publish(surgetank.Message{Body: []byte("2"), Delay: time.Minute}, "q"), publish(surgetank.Message{Body: []byte("x"), TTL: time.Minute}, "x"))
	sub := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1}}}
	out := r.step(sub)
	freeze := &MoveStep{MoveStep: &door.MoveStep{Op: door.MoveFreeze, Queue: "q", To: 1}}
	r.step(freeze)
	if freeze.Err != nil || len(out.Handouts) != 1 {
		t.Fatal(freeze.Err, len(out.Handouts))
	}
	q := r.m.byName["q"]
	state := func() (s string) {
		p := q.newPass()
		q.slots.ascend(0, func(seq uint64, sl *slot) bool {
			due, expires := p.of(q, seq, sl)
			s += fmt.Sprint(seq, q.stateHash(seq, sl, due, expires), sl.live(), " ")
			return true
		})
		return s + fmt.Sprint(q.nextSeq, q.config)
	}
	want := state()
	errs := map[string]func() error{
		"publish": func() error {
			c := publish(surgetank.Message{}, "q")
			r.step(c)
			return c.Results[0].Err
		},
		"transact": func() error {
			c := &Transact{Publish: *publish(surgetank.Message{}, "q")}
			r.step(c)
			return c.Err
		},
		"declare": func() error {
			c := &Declare{Name: "q", Config: surgetank.QueueConfig{MaxMessages: 9}}
			r.step(c)
			return c.Err
		},
		"delete":       func() error { c := &Delete{Name: "q"}; r.step(c); return c.Err },
		"purge":        func() error { c := &Purge{Name: "q"}; r.step(c); return c.Err },
		"drop damaged": func() error { c := &DropDamaged{Name: "q"}; r.step(c); return c.Err },
		"pause":        func() error { c := &Pause{Name: "q", Paused: true}; r.step(c); return c.Err },
		"redrive": func() error {
			c := &Redrive{From: "q", Opts: surgetank.RedriveOptions{To: "x"}}
			r.step(c)
			return c.Err
		},
		"arrive": func() error {
			c := &Arrive{Arrivals: door.Arrivals{Queue: "q", Outbox: "9", Msgs: []door.Arrival{{Seq: 1, Incarnation: 1}}}}
			r.step(c)
			return c.Err
		},
	}
	for name, f := range errs {
		if err := f(); surgetank.CodeOf(err) != surgetank.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	ack := &Settle{Items: []surgetank.Settlement{{Receipt: receiptOf(r, &out.Handouts[0])}}, Results: make([]error, 1)}
	r.step(ack)
	if surgetank.CodeOf(ack.Results[0]) != surgetank.CodeLeaseLost {
		t.Errorf("an ack: %v", ack.Results[0])
	}
	into := &Redrive{From: "x", Opts: surgetank.RedriveOptions{To: "q"}}
	r.step(into)
	if into.Result.Moved != 0 {
		t.Errorf("a redrive into the queue: %+v, %v", into.Result, into.Err)
	}
	r.advance(time.Hour, func(o *Output) {
		if len(o.Handouts) > 0 {
			t.Errorf("the frozen queue delivers %+v", o.Handouts)
		}
	})
	if got := state(); got != want {
		t.Errorf("the frozen queue changed from\n%s to\n%s", want, got)
	}
	agreed(t, "frozen", r)
	r.step(&MoveStep{MoveStep: &door.MoveStep{Op: door.MoveThaw, Queue: "q"}})
	delivered := 0
	r.advance(time.Minute, func(o *Output) { delivered += len(o.Handouts) })
	if delivered == 0 || q.Floor() == 1 || r.m.byName["x"].waiting != 0 {
		t.Errorf("after the thaw %d messages were delivered, and %d wait in x", delivered, r.m.byName["x"].waiting)
	}
	agreed(t, "thawed", r)
}
