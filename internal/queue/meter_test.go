package queue

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// If messages arrive at a steady rate, both averages show this rate from the first seconds on. When
// no more messages arrive, the average over 1 minute falls faster than the average over 10 minutes.
func TestRates(t *testing.T) {
	r := newRig(t, Limits{}, 1)
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{}})
	sub := &Attach{Queue: "q", Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1000, NoAck: true}}}
	r.step(sub)
	near := func(what string, got, want, tolerance float64) {
		t.Helper()
		if math.Abs(got-want) > want*tolerance {
			t.Errorf("%s is %.2f/s, want about %.2f", what, got, want)
		}
	}
	tick := func(n int) surgetank.QueueInfo {
		r.now += int64(250 * time.Millisecond)
		for range n {
			r.step(publish(surgetank.Message{}, "q"))
		}
		r.step()
		return r.m.byName["q"].info()
	}
	var i surgetank.QueueInfo
	for range 10 * 4 {
		i = tick(5)
	}
	near("in after 10 s", i.In.Minute, 20, 0.1)
	near("in after 10 s, long", i.In.TenMinutes, 20, 0.1)
	near("out after 10 s", i.Out.Minute, 20, 0.1)
	for range 1200 * 4 {
		i = tick(5)
	}
	near("in after 20 min", i.In.Minute, 20, 0.03)
	near("out after 20 min", i.Out.TenMinutes, 20, 0.03)
	r.now += int64(time.Minute)
	i = tick(0)
	near("a minute after the end", i.In.Minute, 20/math.E, 0.05)
	near("a minute after the end, long", i.In.TenMinutes, 20*math.Exp(-0.1), 0.05)
}

// The leading groups are found among many groups, with exact counts of their waiting messages.
func TestTopGroups(t *testing.T) {
	r := newRig(t, Limits{TurnScan: 512}, 1)
	r.step(&Declare{Name: "q", Config: surgetank.QueueConfig{Group: surgetank.GroupConfig{Fair: true}}})
	for g := range 3000 {
		for range 1 + g%7/6 {
			r.step(publish(surgetank.Message{Group: fmt.Sprintf("group %d", g)}, "q"))
		}
	}
	for range 50 {
		r.step(publish(surgetank.Message{Group: "noisy"}, "q"))
	}
	c := &Explain{Queue: "q"}
	turns := 0
	for r.step(c); c.Next != 0; r.step(c) {
		turns++
	}
	if turns < 5 {
		t.Errorf("3,000 groups were read in %d turns, though a turn reads 512 slots", turns+1)
	}
	if g := c.Found.Groups; len(g) < topGroups || len(g) > 4*topGroups || g[0].Group != "noisy" || g[0].Waiting != 50 || g[1].Waiting != 2 {
		t.Errorf("the leading groups are %+v", g)
	}
	if oldest := slices.ContainsFunc(c.Found.Groups, func(g surgetank.GroupFigures) bool { return g.Group == "group 0" }); !oldest {
		t.Error("the group with the oldest message does not lead")
	}
}

// The sketch names the groups with most deliveries, also if there are more groups than it has
// entries.
func TestSketch(t *testing.T) {
	var s sketch
	now := int64(1e9)
	for i := range 200_000 {
		now += 1e6
		s.add(fmt.Sprintf("quiet %d", i*7919%5000), 1, now)
		if i%5 == 0 {
			s.add(fmt.Sprintf("busy %d", i/5%3), 1, now)
		}
		s.decay(now)
	}
	if len(s.entries) > sketchSize || len(s.index) != len(s.entries) {
		t.Errorf("%d entries, %d in the index", len(s.entries), len(s.index))
	}
	for i := range 3 {
		if got := s.rate(fmt.Sprintf("busy %d", i), now); got < 55 || got > 70 {
			t.Errorf("busy %d has %.1f deliveries a second, want about 66", i, got)
		}
	}
	if got := s.rate("quiet 1", now); got > 1 {
		t.Errorf("a quiet group has %.1f deliveries a second, want 0.2", got)
	}
	s.decay(now + int64(time.Hour))
	if len(s.entries) != 0 || s.index != nil {
		t.Errorf("an hour later there are %d entries", len(s.entries))
	}
}
