package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// leaps are ways in which the wall clock can be set. step is the number of the change, real is the
// right time.
var leaps = []struct {
	name string
	set  func(step int, real time.Time) time.Time
}{
	{"an hour forwards", func(_ int, real time.Time) time.Time { return real.Add(time.Hour) }},
	{"a year forwards", func(_ int, real time.Time) time.Time { return real.AddDate(1, 0, 0) }},
	{"over the end of 32 bits", func(step int, _ time.Time) time.Time { return time.Unix(1<<31-10+int64(step), 0) }},
	{"to 2100", func(int, time.Time) time.Time { return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }},
	{"an hour back", func(_ int, real time.Time) time.Time { return real.Add(-time.Hour) }},
	{"to 1970", func(int, time.Time) time.Time { return time.Unix(0, 0) }},
	{"before 1970", func(int, time.Time) time.Time { return time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC) }},
	{"an hour to and fro", func(step int, real time.Time) time.Time { return real.Add(time.Hour * time.Duration(1-2*(step%2))) }},
	{"years to and fro", func(step int, real time.Time) time.Time { return real.AddDate(10*(1-2*(step%2)), 0, 0) }},
	{"a little to and fro", func(step int, real time.Time) time.Time {
		return real.Add(time.Duration(step%7-3) * 400 * time.Millisecond)
	}},
}

// timekeeper runs queues for ten seconds. Every duration in them is ten seconds, or one second ten
// times. It records all visible effects.
type timekeeper struct {
	*byHand
	trace strings.Builder
	reads surgetank.Subscription // subscription of a consumer that reads its messages some time after they were handed out
}

func newTimekeeper(t *testing.T) *timekeeper {
	h, err := openByHand(t, memlog.NewStore(), clock.NewManual(start), false)
	if err != nil {
		t.Fatal(err)
	}
	k := &timekeeper{byHand: h}
	for _, c := range []queue.Declare{
		{Name: "ttl", Config: surgetank.QueueConfig{TTL: 10 * time.Second}},
		{Name: "delay"},
		{Name: "lease", Config: surgetank.QueueConfig{Lease: 10 * time.Second}},
		{Name: "late", Config: surgetank.QueueConfig{Lease: 10 * time.Second}},
		{Name: "dedup", Config: surgetank.QueueConfig{DedupWindow: 10 * time.Second}},
		{Name: "rate", Config: surgetank.QueueConfig{Level: surgetank.LevelConfig{Rate: 1}}},
		{Name: "groups", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{Rate: 1, MaxInFlight: 100}}},
		{Name: "retry", Config: surgetank.QueueConfig{Retry: surgetank.RetryConfig{Initial: 10 * time.Second, Jitter: -1}}},
	} {
		h.send(&c)
	}
	for _, name := range []string{"ttl", "lease", "dedup", "late", "retry"} {
		k.put(name, surgetank.Message{DedupID: "id"})
	}
	k.put("delay", surgetank.Message{Delay: 10 * time.Second})
	for range 50 {
		k.put("rate", surgetank.Message{})
		k.put("groups", surgetank.Message{Group: "g"})
	}
	k.attach("lease", surgetank.SubscribeOptions{Credit: 1})
	k.reads = k.attach("late", surgetank.SubscribeOptions{Credit: 1})
	k.attach("rate", surgetank.SubscribeOptions{Credit: 50})
	k.attach("groups", surgetank.SubscribeOptions{Credit: 50})
	failing := k.attach("retry", surgetank.SubscribeOptions{Credit: 1})
	ds, err := failing.TryReceive(nil, 1, 1<<20)
	if err != nil || len(ds) != 1 {
		t.Fatal(ds, err)
	}
	h.send(&queue.Settle{Items: []surgetank.Settlement{{Receipt: ds[0].Receipt, Op: surgetank.Nack, Delay: -1}}, Results: make([]error, 1)})
	return k
}

func (k *timekeeper) put(name string, m surgetank.Message) surgetank.PublishResult {
	p := surgetank.Publishing{Queues: []string{name}, Message: m}
	c := &queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)}
	if m.DedupID != "" {
		c.Msgs[0].Dedup = queue.MakeDedupKey(m.DedupID)
	}
	k.send(c)
	return c.Results[0]
}

func (k *timekeeper) attach(name string, o surgetank.SubscribeOptions) door.Subscription {
	c := &queue.Attach{Queue: name, Opts: door.SubscribeOptions{SubscribeOptions: o}}
	s := k.NewSubscription(c)
	k.send(c)
	return s
}

// look records the visible state. It also publishes a message, to record the time that the message
// gets.
func (k *timekeeper) look(t *testing.T) {
	k.run()
	res := k.put("dedup", surgetank.Message{DedupID: "id"})
	fmt.Fprintf(&k.trace, "at %v: id %v again %v", k.Now().Sub(start), res.ID.Seq, res.Duplicate)
	c := &queue.Info{}
	k.send(c)
	for _, i := range c.Infos {
		fmt.Fprintf(&k.trace, ", %s %d+%d+%d+%d expired %d lost %d given %d age %v", i.Name, i.Ready, i.Blocked, i.Delayed, i.Leased, i.Expired, i.LeasesLost, i.Delivered, i.OldestAge)
	}
	k.put("delay", surgetank.Message{})
	p := &queue.Peek{Queue: "delay", Opts: surgetank.PeekOptions{Max: 1000}}
	k.send(p)
	last := int64(0)
	for _, f := range p.Found {
		if f.Seq == 1 {
			continue // a delayed message's time is the end of its delay
		}
		if f.Time < last {
			t.Errorf("message %d is from %v, and the one before it from %v", f.Seq, time.Unix(0, f.Time), time.Unix(0, last))
		}
		last = f.Time
	}
	fmt.Fprintf(&k.trace, ", newest of %v\n", time.Unix(0, last).Sub(start))
}

// play runs the ten seconds and sets the wall clock in between. It returns the record.
func (k *timekeeper) play(t *testing.T, set func(step int, real time.Time) time.Time) string {
	for step := range 20 {
		if set != nil {
			k.clock.Set(set(step, start.Add(k.clock.Passed())))
			if step%3 == 0 {
				k.run() // sometimes the loop runs before time has passed
			}
		}
		k.clock.Advance(time.Second/2 - time.Nanosecond)
		k.look(t)
		k.clock.Advance(time.Nanosecond)
		k.look(t)
		if step == 10 {
			ds, err := k.reads.TryReceive(nil, 10, 1<<20)
			fmt.Fprintf(&k.trace, "read late: %d %v\n", len(ds), err)
		}
	}
	return k.trace.String()
}

// TestClockLeaps: the wall clock is set once or repeatedly while the broker runs. Every duration
// stays the same: TTLs, delays, leases, retries, dedup windows, rates. Times and ids continue to
// ascend, and no caller sees a difference.
func TestClockLeaps(t *testing.T) {
	want := newTimekeeper(t).play(t, nil)
	early, due, _ := strings.Cut(want[strings.Index(want, "at 9.999999999s"):], "\n")
	for _, both := range [][2]string{ // the states one nanosecond before ten seconds and at ten seconds
		{"id 1 again true", "id 2 again false"},
		{"ttl 1+0+0+0 expired 0", "ttl 0+0+0+0 expired 1"},
		{"lease 0+0+0+1 expired 0 lost 0", "lease 0+0+1+0 expired 0 lost 1"},
		{"retry 0+0+1+0", "retry 0+0+0+1"},
		{"rate 40+0+0+10", "rate 39+0+0+11"},
		{"groups 0+40+0+10", "groups 0+39+0+11"},
		{"delay 38+0+1+0", "delay 40+0+0+0"},
	} {
		if !strings.Contains(early, both[0]) || !strings.Contains(due, both[1]) {
			t.Errorf("the test does not test what it should: want %q, then %q in\n%s\n%s", both[0], both[1], early, due)
		}
	}
	if !strings.Contains(want, "read late: 1 <nil>") {
		t.Error("the late reader got nothing")
	}
	for _, leap := range leaps {
		t.Run(leap.name, func(t *testing.T) {
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(newTimekeeper(t).play(t, leap.set), "\n")); diff != "" {
				t.Errorf("the clock was set, and that was seen (-undisturbed +disturbed):\n%s", diff)
			}
		})
	}
}

// TestClockLeapsBeforeARestart: if the clock was set back before the broker opens again, no
// duration changes. If the clock was set forward, the broker uses its time. In both cases times and
// ids continue to ascend, and later messages have the right durations.
func TestClockLeapsBeforeARestart(t *testing.T) {
	for _, leap := range leaps {
		t.Run(leap.name, func(t *testing.T) {
			store, c := memlog.NewStore(), clock.NewManual(start)
			var last time.Time
			seq := uint64(0)
			for life := range 4 {
				c.Set(leap.set(life, start.Add(c.Passed())))
				h, err := openByHand(t, store, c, life%2 == 0)
				if err != nil {
					t.Fatal(err)
				}
				h.run()
				k := &timekeeper{byHand: h}
				if now := h.Now(); now.Before(last) || now.Before(c.Now()) {
					t.Fatalf("life %d begins at %v; the one before ended at %v, and the clock stands at %v", life, now, last, c.Now())
				}
				h.send(&queue.Declare{Name: "q", Mode: surgetank.DeclareIfAbsent})
				h.send(&queue.Declare{Name: "ids", Config: surgetank.QueueConfig{DedupWindow: 10 * time.Second}, Mode: surgetank.DeclareIfAbsent})
				if life > 0 {
					left := 10*time.Second - h.Now().Sub(last) // shorter only if the clock was set forward
					if res := k.put("ids", surgetank.Message{DedupID: fmt.Sprint(life - 1)}); res.Duplicate != (left > 0) {
						t.Errorf("life %d: the id of the life before is known: %v; its window has %v left", life, res.Duplicate, left)
					}
					if left > 0 {
						c.Advance(left - 1)
						if n := h.received(); n != 0 {
							t.Errorf("life %d: %d messages came %v early", life, n, left)
						}
						c.Advance(1)
					}
					if n := h.received(); n != 1 {
						t.Errorf("life %d: %d messages came when their time was up", life, n)
					}
				}
				k.put("ids", surgetank.Message{DedupID: fmt.Sprint(life)})
				res := k.put("q", surgetank.Message{Delay: 10 * time.Second})
				if res.ID.Seq <= seq {
					t.Errorf("life %d: message %+v comes behind %d", life, res, seq)
				}
				seq, last = res.ID.Seq, h.Now()
				store.Crash(0)
			}
		})
	}
}

// TestAStallIsNoMatterOfTheClock: if the clock is set while the log writes, Stalled neither reports
// a false stall nor misses a real one.
func TestAStallIsNoMatterOfTheClock(t *testing.T) {
	for _, leap := range leaps {
		h, err := openByHand(t, memlog.NewStore(), clock.NewManual(start), false)
		if err != nil {
			t.Fatal(err)
		}
		h.run()
		if err := h.Send(&queue.Declare{Name: "q"}, func(error) {}); err != nil {
			t.Fatal(err)
		}
		h.Tick()
		h.clock.Set(leap.set(1, start))
		if d := h.Stalled(); d > time.Second {
			t.Errorf("%s: stalled for %v at once", leap.name, d)
		}
		h.clock.Advance(5 * time.Second)
		if d := h.Stalled(); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("%s: after 5 s without an answer stalled for %v", leap.name, d)
		}
	}
}
