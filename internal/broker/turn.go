package broker

import "github.com/surgetank/surgetank/internal/queue"

// turn runs the machine once, if a command waits and the log accepts another entry. Otherwise it
// returns false. The caller has handled what arrived before.
func (b *core) turn() bool {
	b.housekeep()
	b.say(b.digest.Take(b.now()))
	if b.crowded() {
		return false
	}
	b.takeDamage()
	b.front = b.mailbox.takeFront(b.front)
	if len(b.pending) == 0 {
		b.pending, b.spare = b.mailbox.take(b.spare), nil
		b.taken = b.pending
	}
	now := b.now()
	if b.idle(now) && b.machine.NextDeadline() > now && !b.machine.Sweeping() {
		if len(b.pending) == 0 {
			b.spare, b.pending = b.pending, nil
		}
		return b.heldDue(now)
	}

	size := 256 + min(opWeight*int64(len(b.front)), b.machine.TurnBytes()/2)
	b.cmds = b.cmds[:0]
	for _, o := range b.front {
		b.cmds = append(b.cmds, o.cmd)
	}
	for _, o := range b.pending {
		b.cmds = append(b.cmds, o.cmd)
		if size += o.weight; size > b.pacing.EntryBytes {
			break // the turn will be full
		}
	}
	back := b.cmds[len(b.front):]
	number := b.number + 1
	out := queue.Output{Entry: queue.AppendHeader(make([]byte, 0, size), queue.EntryHeader{Epoch: b.epoch, Number: number, Time: b.machine.TurnTime(now)})}
	fronts, done := b.machine.StepLanes(now, number, b.cmds[:len(b.front)], back, &out)
	b.mailbox.decided(b.pending[:done])
	f := flight{ended: out.Ended, entry: b.number, turn: out.Turn, metas: out.Metas}
	if out.Records > 0 {
		f.entry = number
	}
	f.ops = make([]*op, 0, fronts+done)
	f.ops = append(append(f.ops, b.front[:fronts]...), b.pending[:done]...)
	for _, o := range f.ops {
		b.settingsChanged(o.cmd)
	}
	b.tellLevels(&f)
	f.pools = b.reports(out.Pools)
	b.group(&f, out.Handouts)
	decided := append(b.cmds[:fronts], back[:done]...)
	clear(b.pending[:done])
	if b.pending = b.pending[done:]; len(b.pending) == 0 {
		b.spare, b.pending, b.taken = b.taken[:0], nil, nil
	}
	rest := copy(b.front, b.front[fronts:])
	clear(b.front[rest:])
	b.front = b.front[:rest]

	b.noteAll(out.Notices, now)
	if w := b.watch; w != nil {
		t := Turn{Number: b.number, Now: b.machine.TurnTime(now), Commands: decided, Split: b.machine.Halfway(), Output: &out, Machine: b.machine, Left: b.left}
		b.left = nil
		if out.Records > 0 {
			t.Number = number
		}
		w(t)
	}
	if out.Records > 0 {
		b.number = number
		b.pacing.last = now
		b.snap.since += int64(len(out.Entry))
		b.reclaim.logged += int64(len(out.Entry))
		b.held.add(number, out.Entry, now, b.opts.Hold)
		if !f.quiet() || b.held.full(b.pacing.mostHeld()) || b.heldDue(now) {
			b.appendHeld(now)
		}
		b.flights = append(b.flights, f)
		b.maintain()
		return true
	}
	if b.number == b.durable {
		b.release(&f)
		return true
	}
	b.flights = append(b.flights, f)
	if !f.quiet() {
		b.appendHeld(now)
	}
	return true
}

// group collects the hand-outs of each subscription as pending outputs of an entry.
func (b *core) group(f *flight, outs []queue.Handout) {
	for len(outs) > 0 {
		n := 1
		for n < len(outs) && outs[n].Consumer == outs[0].Consumer {
			n++
		}
		f.outs = append(f.outs, pendingRun{handouts: outs[:n:n], floor: outs[0].Queue.Floor(), entry: outs[0].Queue.EntrySeen(f.entry)})
		outs = outs[n:]
	}
}

// landed handles a durable entry: it sends the outputs that waited for the entry.
func (b *core) landed(t ticket) {
	if !b.alive() {
		return
	}
	if t.err != nil {
		b.fail(t.err)
		return
	}
	b.places.add(t.entry, t.offset)
	b.durable = t.entry
	b.pacing.answered()
	if b.busyAt.Store(0); b.number > b.durable {
		b.busyAt.Store(b.now())
	}
	n := 0
	for n < len(b.flights) && b.flights[n].entry <= t.entry {
		b.release(&b.flights[n])
		n++
	}
	rest := copy(b.flights, b.flights[n:])
	clear(b.flights[rest:])
	b.flights = b.flights[:rest]
	b.snapLanded(t)
	b.trimFreed()
}

// settingsChanged updates the settings and subscriptions that other goroutines use, after a command
// changed the machine.
func (b *core) settingsChanged(cmd queue.Command) {
	switch c := cmd.(type) {
	case *queue.Declare:
		if c.Err == nil {
			b.groups.set(c.Name, c.Info.Config.GroupBy)
			b.dedups.set(c.Name, c.Info.Config.DedupBy)
			b.coalesces.set(c.Name, c.Info.Config.Coalesce.By)
		}
	case *queue.Delete:
		if c.Err == nil {
			b.groups.set(c.Name, "")
			b.dedups.set(c.Name, "")
			b.coalesces.set(c.Name, "")
		}
	case *queue.Attach:
		if c.Err == nil {
			s := c.Owner.(*subscription)
			s.id = c.Consumer
			b.subs[c.Consumer] = s
			if s.opts.OnLevel != nil {
				b.levelSubs[c.Consumer] = s
				b.levels-- // so that the new subscription is told
			}
		}
	case *lendPool:
		if c.state == nil {
			delete(b.lent, c.Pool)
		} else {
			if b.lent == nil {
				b.lent = map[uint64]func(int, int, bool){}
			}
			b.lent[c.Pool] = c.state
		}
	case *queue.Detach:
		delete(b.levelSubs, c.Consumer)
		delete(b.subs, c.Consumer) // the consumer was stopped before, so no hand-outs are pending
	}
}
