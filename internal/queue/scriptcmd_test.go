package queue

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// command runs one line of a script.
func (s *script) command(line string) {
	a := parse(line)
	switch a.words[0] {
	case "new":
		out := s.out.String()
		*s = *newScript(s.t)
		s.out.WriteString(out)
	case "queue", "declare":
		s.declare(a)
	case "pub":
		c := s.publish(&a)
		s.turn(c, func() { s.published(c) })
	case "sub", "recv", "wait":
		s.attach(a)
	case "credit":
		n, _ := strconv.Atoi(a.words[2])
		s.turn(&Credit{Consumer: s.consumers[a.words[1]], N: n}, nil)
	case "pool":
		id, _ := strconv.Atoi(a.words[1])
		n, _ := strconv.Atoi(a.words[2])
		s.turn(&PoolLimit{Pool: uint64(id), Limit: n}, nil)
	case "stop":
		s.turn(&Stop{Consumer: s.consumers[a.words[1]]}, nil)
	case "detach":
		c := &Detach{Consumer: s.consumers[a.words[1]], All: a.has("all")}
		if back := a.vals["back"]; back != "" {
			for _, w := range strings.Split(back, ",") {
				c.Return = append(c.Return, s.receipt(w))
			}
		}
		s.turn(c, nil)
	case "ack", "nack", "reject", "extend":
		items := s.settlements(&a)
		c := &Settle{Items: items, Results: make([]error, len(items))}
		s.turn(c, func() {
			for i, err := range c.Results {
				if err != nil {
					s.printf("%s: %s", a.words[i+1], failure(err))
				}
			}
		})
	case "tx":
		s.transact(strings.TrimPrefix(line, "tx "))
	case "meta":
		c := &SetMeta{Namespace: a.words[1], Name: a.words[2]}
		if len(a.words) > 3 {
			c.Value = []byte(a.words[3])
		}
		if v := a.vals["if"]; v != "" {
			c.Conditional, c.Expected = true, parseVersion(v)
		}
		s.turn(c, func() {
			if c.Err != nil {
				s.printf("%s", failure(c.Err))
			}
		})
		r := &Meta{Namespace: a.words[1]}
		s.turn(r, func() {
			values := map[string]string{}
			for name, v := range r.State.Values {
				values[name] = string(v.Value)
			}
			s.printf("%s: %q", a.words[1], values)
		})
	case "versions":
		r := &Meta{Namespace: a.words[1]}
		s.turn(r, func() {
			for _, name := range slices.Sorted(maps.Keys(r.State.Values)) {
				s.printf("%s/%s version %s", a.words[1], name, shownVersion(r.State.Values[name].Version))
			}
			s.printf("newest %s", shownVersion(r.State.Version))
		})
	case "full":
		s.m.SetFull(a.has("on"))
	case "tokens":
		s.tokens = a.has("on")
	case "records":
		s.records = a.has("on")
	case "advance":
		s.advanceBy(a.words[1])
	case "snapshot":
		s.takeSnapshot(64)
	case "close": // the script's next command must be a restart
		before := len(s.log)
		s.output(s.step(&CloseEpoch{}), before)
	case "restart":
		s.restart(a.has("snapshot"))
	case "relocate":
		n := s.relocate(0, uint64(len(s.log))+1, func() bool { return true })
		s.printf("%d moved", n)
	default:
		s.admin(a)
	}
}

func (s *script) declare(a arguments) {
	c := &Declare{}
	switch a.words[0] {
	case "queue":
		c.Name = a.words[1]
	default:
		c.Mode = map[string]surgetank.DeclareMode{"absent": surgetank.DeclareIfAbsent, "new": surgetank.DeclareNew, "update": surgetank.DeclareUpdate}[a.words[1]]
		c.Name = a.words[2]
	}
	config, err := a.config()
	if err != nil {
		s.printf("%s", failure(err))
		return
	}
	c.Config = config
	s.turn(c, func() {
		switch {
		case c.Err != nil:
			s.printf("%s", failure(c.Err))
		case c.Created && a.words[0] == "declare":
			s.printf("made")
		}
	})
}

func (s *script) attach(a arguments) {
	c := &Attach{Now: a.words[0] == "recv", Once: a.words[0] == "wait"}
	name := a.words[1]
	c.Queue = a.words[2]
	o := &c.Opts
	o.Credit, o.Lease, o.GroupRun, o.Pool, o.Priority = a.number("credit"), a.duration("lease"), a.number("run"), uint64(a.number("pool")), a.number("prio")
	o.NoAck, o.ManualCredit, o.Exclusive, o.Single, o.OwnLevel = a.has("noack"), a.has("manual"), a.has("exclusive"), a.has("single"), a.has("own")
	if c.Now || c.Once {
		o.Credit, _ = strconv.Atoi(a.words[3])
		o.ManualCredit = true
	}
	before := len(s.log)
	out := s.step(c)
	if c.Err != nil {
		s.printf("%s: %s", name, failure(c.Err))
		return
	}
	s.consumers[name], s.names[c.Consumer] = c.Consumer, name
	s.output(out, before)
	s.settleDown(func(o *Output) { s.output(o, len(s.log)-min(1, o.Records)) })
}

func (s *script) transact(line string) {
	c := &Transact{}
	for _, part := range strings.Split(line, ";") {
		a := parse(part)
		if a.words[0] == "pub" {
			p := s.publish(&a)
			c.Publish.Msgs, c.Publish.Results = append(c.Publish.Msgs, p.Msgs...), append(c.Publish.Results, p.Results...)
		} else {
			c.Settle.Items = append(c.Settle.Items, s.settlements(&a)...)
		}
	}
	s.turn(c, func() {
		if c.Err != nil {
			s.printf("%s", failure(c.Err))
			return
		}
		s.published(&c.Publish)
	})
}

func (s *script) advanceBy(word string) {
	d := (&arguments{vals: map[string]string{"d": word}}).duration("d")
	start := s.now
	s.advance(d, func(o *Output) {
		if len(o.Handouts)+len(o.Ended) > 0 || s.records && o.Records > 0 {
			s.printf("at %s", relative(s.now, start))
		}
		s.output(o, len(s.log)-min(1, o.Records))
	})
}

func (s *script) restart(snapshot bool) {
	before := dump(s.m, s.now)
	if snapshot {
		s.m = s.restored(s.snaps[len(s.snaps)-1])
	} else {
		s.m = s.replayed(len(s.log))
	}
	if after := dump(s.m, s.now); after != before {
		s.t.Errorf("a restart changed the state:\n%s\nto\n%s", before, after)
	}
	s.consumers, s.names = map[string]uint64{}, map[uint64]string{}
	before2 := len(s.log)
	s.output(s.step(&OpenEpoch{Epoch: s.m.Epoch() + 1, Incarnation: 1000 + s.m.Epoch()}), before2)
	s.settleDown(func(o *Output) { s.output(o, len(s.log)-min(1, o.Records)) })
}

// admin runs the commands about a queue as a whole.
func (s *script) admin(a arguments) {
	name := a.words[1]
	answer := func(err error, format string, args ...any) {
		if err != nil {
			s.printf("%s", failure(err))
		} else {
			s.printf(format, args...)
		}
	}
	switch a.words[0] {
	case "purge":
		c := &Purge{Name: name}
		s.turn(c, func() { answer(c.Err, "%d purged", c.Purged) })
	case "drop":
		c := &DropDamaged{Name: name}
		s.turn(c, func() { answer(c.Err, "%d dropped", c.Dropped) })
	case "unreadable": // a message that was handed out; with "waiting", a message that was not handed out
		c := &Quarantine{ID: surgetank.MessageID{Queue: s.m.byName[name].id, Seq: uint64(a.number("seq"))}, What: a.vals["what"], Retry: a.duration("retry")}
		if !a.has("waiting") {
			c.Lease = s.receipt(fmt.Sprintf("%s/%d", name, c.ID.Seq)).Lease
		}
		s.turn(c, func() { s.printf("kept out: %v", c.Done) })
	case "pause", "resume":
		c := &Pause{Name: name, Paused: a.words[0] == "pause", For: a.duration("for"), By: a.vals["by"]}
		s.turn(c, func() {
			if c.Err != nil {
				answer(c.Err, "")
			}
		})
	case "breaker":
		c := &SetBreaker{Name: name, Open: a.has("open"), By: "ann", Why: a.vals["why"]}
		s.turn(c, func() {
			if c.Err != nil {
				answer(c.Err, "")
			}
		})
	case "report":
		c := &ReportTarget{Name: name, Report: door.TargetReport{Up: a.has("up"), RetryAfter: a.duration("after")}}
		s.turn(c, func() {
			if c.Err != nil {
				answer(c.Err, "")
			}
		})
	case "level":
		i, h := s.m.byName[name].levelInfo(), &LevelHistory{Name: name}
		s.turn(h, func() {
			if i == nil {
				s.printf("no control")
				return
			}
			s.printf("in flight %d, limit %d, in force %d, %s, breaker %s %s, openings %d, probes %d, refunds %d", i.InFlight, i.Limit, i.InForce, i.Reason, i.Breaker, i.BreakerCause, i.Openings, i.Probes, i.Refunds)
			for _, o := range h.Result.Outages {
				s.printf("outage: %s by %q %q", o.Cause, o.OpenedBy, o.OpenedWhy)
			}
		})
	case "delete":
		c := &Delete{Name: name, Opts: surgetank.DeleteOptions{IfUnused: a.has("unused"), IfEmpty: a.has("empty")}}
		s.turn(c, func() { answer(c.Err, "%d removed", c.Removed) })
	case "info", "why":
		c := &Info{Name: name}
		s.turn(c, func() {
			if c.Err != nil {
				answer(c.Err, "")
				return
			}
			if a.words[0] == "why" {
				s.printf("%q", c.Infos[0].Waiting)
			} else {
				next := ""
				if i := &c.Infos[0]; !i.NextTry.IsZero() {
					next = fmt.Sprintf(" next_try=%s %q", relative(i.NextTry.UnixNano(), s.now), i.Failure)
				}
				s.printf("%s%s", infoLine(&c.Infos[0]), next)
			}
		})
	case "explain":
		c := &Explain{Queue: name, Opts: surgetank.ExplainOptions{Group: a.vals["group"]}}
		if seq := a.number("seq"); seq > 0 {
			c.Opts.ID = surgetank.MessageID{Queue: s.m.byName[name].id, Seq: uint64(seq)}
		}
		s.turn(c, func() {
			if c.Err != nil {
				answer(c.Err, "")
				return
			}
			s.explained(&c.Found)
		})
	case "peek":
		c := &Peek{Queue: name, Opts: surgetank.PeekOptions{Max: 100, After: uint64(a.number("after")), State: surgetank.State(a.vals["state"])}}
		if n := a.number("max"); n > 0 {
			c.Opts.Max = n
		}
		if seq := a.number("seq"); seq > 0 {
			c.Opts.ID = surgetank.MessageID{Queue: s.m.byName[name].id, Seq: uint64(seq)}
		}
		s.turn(c, func() {
			if c.Err != nil {
				answer(c.Err, "")
			}
			for i := range c.Found {
				damage := c.Found[i].Damage
				if damage != "" {
					damage = ": " + damage
				}
				s.printf("%s%s%s", s.shown(&c.Found[i].Handout, c.Found[i].State), damage, s.waits(&c.Found[i]))
			}
		})
	case "redrive":
		c := &Redrive{From: name, Opts: surgetank.RedriveOptions{To: a.vals["to"], Max: int64(a.number("max")), Reason: a.vals["reason"],
			Queue: a.vals["queue"], DryRun: a.has("dry")}}
		s.turn(c, func() {
			answer(c.Err, "%d matched, %d moved, %d skipped", c.Result.Matched, c.Result.Moved, c.Result.Skipped)
		})
	default:
		panic("unknown command " + strings.Join(a.words, " "))
	}
}

// explained prints an explanation.
func (s *script) explained(e *surgetank.Explanation) {
	line := e.Verdict
	if e.ID.Seq != 0 {
		line += fmt.Sprintf(" seq=%d", e.ID.Seq)
	}
	if !e.Until.IsZero() {
		line += " until=" + relative(e.Until.UnixNano(), s.now)
	}
	if !e.NextTry.IsZero() {
		line += " next_try=" + relative(e.NextTry.UnixNano(), s.now)
	}
	for _, x := range []struct {
		name string
		n    int64
	}{{"attempt", int64(e.Attempt)}, {"ahead", e.Ahead}, {"turn", e.Turn}} {
		if x.n > 0 {
			line += fmt.Sprintf(" %s=%d", x.name, x.n)
		}
	}
	for _, h := range e.Leases {
		line += fmt.Sprintf(" lease=%d", h.ID.Seq)
	}
	s.printf("%s: %s", line, e.Text)
	if e.Behind != nil {
		s.explained(e.Behind)
	}
	if d := &e.Drain; d.Text != "" {
		s.printf("  drain %d by %q: %s", d.Backlog, d.By, d.Text)
	}
	for _, g := range e.Groups {
		s.printf("  group %s waiting=%d in_flight=%d rate=%.2f age=%v", g.Group, g.Waiting, g.InFlight, g.Rate, g.Age)
	}
}

// waits formats the fields of a peek about a message that waits.
func (s *script) waits(p *Peeked) (b string) {
	if p.Due != 0 {
		b += " due=" + relative(p.Due, s.now)
	}
	if p.Failure != "" {
		b += fmt.Sprintf(" failed %q", p.Failure)
	}
	if p.Waits != "" {
		b += " waits " + p.Waits
	}
	return b
}

// infoLine formats the counts of a queue that are not zero.
func infoLine(i *surgetank.QueueInfo) string {
	b := fmt.Sprintf("ready=%d blocked=%d delayed=%d leased=%d bytes=%d floor=%d", i.Ready, i.Blocked, i.Delayed, i.Leased, i.Bytes, *door.QueueFloor(i))
	for _, x := range []struct {
		name string
		n    uint64
	}{{"backing_off", uint64(i.BackingOff)}, {"groups", uint64(i.Groups)}, {"consumers", uint64(i.Consumers)}, {"age", uint64(i.OldestAge.Seconds())}, {"published", i.Published},
		{"duplicates", i.Duplicates}, {"refused", i.Refused}, {"delivered", i.Delivered}, {"acked", i.Acked}, {"nacked", i.Nacked}, {"expired", i.Expired},
		{"damaged", uint64(i.Damaged)}, {"dead", i.DeadLettered}, {"dropped", i.Dropped}, {"lost", i.LeasesLost}, {"coalesced", i.Coalesced}} {
		if x.n > 0 {
			b += fmt.Sprintf(" %s=%d", x.name, x.n)
		}
	}
	return b
}

// shownVersion writes the version of a value as ENTRY.POSITION.
func shownVersion(v uint64) string { return fmt.Sprintf("%d.%d", Ref(v).Entry(), v&(1<<refBits-1)) }

func parseVersion(s string) (v uint64) {
	if s == "none" {
		return 0
	}
	var entry, position uint64
	if _, err := fmt.Sscanf(s, "%d.%d", &entry, &position); err != nil {
		panic(err)
	}
	return entry<<refBits | position
}
