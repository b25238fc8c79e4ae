package mutant

// plants are the source texts to change for each defect: the text before is replaced by the text
// after. In after, DEFECT is true if the defect is on. Each text before must occur exactly once in
// its file, which a test checks. Line breaks at the start and end of a text are ignored.
var plants = []struct {
	defect              Defect
	file, before, after string
}{
	{EarlyRelease, "internal/broker/turn.go", `
		b.flights = append(b.flights, f)
		b.maintain()
`, `
		if DEFECT {
			b.release(&f)
			f = flight{entry: number}
		}
		b.flights = append(b.flights, f)
		b.maintain()
`},
	{EarlyRelease, "internal/broker/turn.go", `if b.number == b.durable {`, `if b.number == b.durable || DEFECT {`},
	{AnyEpoch, "internal/queue/settle.go", `s.Receipt.Epoch == m.epoch && s.Receipt.Incarnation == m.incarnation() {`, `(s.Receipt.Epoch == m.epoch && s.Receipt.Incarnation == m.incarnation() || DEFECT) {`},
	{DedupForgotten, "internal/queue/snapshot.go", `
		case kindSnapDedup:
`, `
		case kindSnapDedup:
			if DEFECT {
				continue
			}
`},
	{EarlyDeadline, "internal/queue/lease.go", `
			l.deadline = m.now + int64(term)
`, `
			l.deadline = m.now + int64(term)
			if DEFECT {
				l.deadline -= int64(term) / 2
			}
`},
	{EarlyDeadline, "internal/queue/lease.go", `
		out.Lease, out.Deadline = l.no, l.deadline
`, `
		out.Lease, out.Deadline = l.no, l.deadline
		if DEFECT && l.deadline != 0 {
			out.Deadline = m.now + int64(term)
		}
`},
	{AckNotLogged, "internal/queue/settle.go", `
	m.emit(r)
	return n
`, `
	if DEFECT {
		m.apply(r)
		return n
	}
	m.emit(r)
	return n
`},
	{StrictOvertaken, "internal/queue/replay.go", `case q.strict(h) && s.has(slotRedelivered):`, `case q.strict(h) && s.has(slotRedelivered) && !DEFECT:`},
	{TrimTooFar, "internal/broker/snapshots.go", `
	b.freed = freed{before: min(snapshot+1, b.machine.Needed())
`, `
	needed := b.machine.Needed()
	if DEFECT {
		needed = snapshot + 1
	}
	b.freed = freed{before: min(snapshot+1, needed)
`},
	{ExpiryForgotten, "internal/queue/snapshot.go", `
		case kindSnapTimes:
`, `
		case kindSnapTimes:
			if DEFECT {
				continue
			}
`},
	{PoisonDropped, "internal/queue/lease.go", `
			if !m.sendToDeadLetter(q, seq, reasonAttempts, attempts, detail) {
`, `
			if DEFECT {
				m.remove(q, seq, reasonAttempts)
				return
			}
			if !m.sendToDeadLetter(q, seq, reasonAttempts, attempts, detail) {
`},
	{SnapshotTooNew, "internal/queue/snapshot.go", `
	m.snapGen++
`, `
	m.snapGen++
	if DEFECT {
		at++
	}
`},
	{PurgeTakesLeased, "internal/queue/replay.go", `if s.live() && !keep[seq] {`, `if s.live() && (!keep[seq] || DEFECT && q.m.recovering) {`},
	{TrimTooSoon, "internal/broker/snapshots.go", `
, known: b.number}
	b.trimFreed()
`, `
, known: b.number}
	if DEFECT {
		b.freed.known = b.durable
	}
	b.trimFreed()
`},
	{SyncSkipped, "internal/disklog/writer.go", `
if err := w.out.Sync(); err != nil {
		return err
	}
`, `
if !DEFECT {
		if err := w.out.Sync(); err != nil {
			return err
		}
	}
`},
	{DirSyncDropped, "internal/disklog/segment.go", `
	if err := m.fs.SyncDir(m.dir); err != nil {
`, `
	if DEFECT {
		return nil
	}
	if err := m.fs.SyncDir(m.dir); err != nil {
`},
	{ChecksumIgnored, "internal/disklog/scan.go", `if sum != fr.sum {`, `if sum != fr.sum && !DEFECT {`},
	{ChecksumIgnored, "internal/disklog/segment.go", `castagnoli, data) != fr.sum {`, `castagnoli, data) != fr.sum && !DEFECT {`},
	{IDReused, "internal/queue/snapshot.go", `
	q.nextSeq = next
`, `
	q.nextSeq = next
	if DEFECT {
		q.nextSeq = max(1, next-1)
	}
`},
	{LeaseNumberTwice, "internal/queue/lease.go", `
	m.nextLease++
`, `
	m.nextLease++
	if DEFECT {
		m.nextLease = 1
	}
`},
	{WatermarkDedup, "internal/queue/dedup.go", `
	if i == 0 {
		return 0, false
	}
`, `
	if i == 0 {
		for line := d.line.clone(); DEFECT && line.len() > 0; line.pop() {
			if x := line.first(); string(x.key[:]) > string(key[:]) {
				return x.seq, true
			}
		}
		return 0, false
	}
`},
	{GroupsLost, "internal/queue/snapshot.go", `
		if s.has(slotNoted) != (q.notes
`, `
		if DEFECT {
			s.flow = 0
		}
		if s.has(slotNoted) != (q.notes
`},
	{DelayForgotten, "internal/queue/lease.go", `
	case delay > 0:
`, `
	case DEFECT:
	case delay > 0:
`},
	{GiveBackLost, "internal/queue/subscribe.go", `
			m.giveUp(q, s.Receipt.ID.Seq, 0, false, "", leaseEnd{outcome: breaker.Returned})
`, `
			if DEFECT {
				q.endLease(s.Receipt.ID.Seq, leaseEnd{outcome: breaker.Returned})
				m.acked(q, s.Receipt.ID.Seq)
				continue
			}
			m.giveUp(q, s.Receipt.ID.Seq, 0, false, "", leaseEnd{outcome: breaker.Returned})
`},
	{HeldOvertaken, "internal/queue/damage.go", `
	q.flows[s.flow].holder = 0 
`, `
	if DEFECT {
		q.flows[s.flow].inflight--
	}
	q.flows[s.flow].holder = 0 
`},
	{HeldOvertaken, "internal/queue/damage.go", `
	q.flows[s.flow].inflight--
`, `
	if !DEFECT {
		q.flows[s.flow].inflight--
	}
`},
	{LossUnlisted, "internal/queue/repair.go", `
		s.bodies(q, &l, gone, readable)
`, `
		s.bodies(q, &l, gone, readable)
		if DEFECT {
			l.Missing = nil
		}
`},
	{AckUnrepaired, "internal/queue/repair.go", `
	case kindAcked, kindRemoved:
`, `
	case kindAcked, kindRemoved:
		if DEFECT && r.Kind == kindAcked {
			return false
		}
`},
	{AcceptIgnored, "internal/queue/refuse.go", `
	if a.Rate <= 0 {
`, `
	if a.Rate <= 0 || DEFECT {
`},
	{FullForEver, "internal/broker/reclaim.go", `
	cost := b.snapshotCost(now)
`, `
	if DEFECT && b.full {
		return
	}
	cost := b.snapshotCost(now)
`},
	{PublishersForgotten, "internal/queue/snapshot.go", `
			m.publishers.restore(d)
`, `
			if !DEFECT {
				m.publishers.restore(d)
			}
`},
	{NumbersNotLogged, "internal/queue/publisher.go", `
		m.emit(r)
`, `
		if DEFECT {
			r.Time = m.now
			m.apply(r)
		} else {
			m.emit(r)
		}
`},
	{ReasonsForgotten, "internal/queue/snapshot.go", `
		case kindSnapFailures:
`, `
		case kindSnapFailures:
			if DEFECT {
				continue
			}
`},
	{DelayAges, "internal/queue/replay.go", `
if r.NotBefore > r.Time && notBefore > r.Time {
		s.setTime
`, `
if r.NotBefore > r.Time && notBefore > r.Time && !DEFECT {
		s.setTime
`},
	{BackOffBlocked, "internal/queue/backoff.go", `
	q.flows[h].backs = uint32
`, `
	if DEFECT {
		return
	}
	q.flows[h].backs = uint32
`},
	{WeightsIgnored, "internal/queue/ring.go", `
	case f.weight > 0:
`, `
	case DEFECT:
		return 1
	case f.weight > 0:
`},
	{AlwaysNew, "internal/queue/sched.go", `
		linked && s.fair && f.waiting == 0,
`, `
		linked && s.fair && f.waiting == 0 && !DEFECT,
`},
	{AlwaysNew, "internal/queue/sched.go", `
		case f.place >= 0 && (f.waiting > 0 || !s.fair):
			q.leave(h)
`, `
		case f.place >= 0 && (f.waiting > 0 || !s.fair || DEFECT):
			if q.leave(h); f.waiting == 0 {
				f.flags &^= flowSeen
			}
`},
	{FreshStarved, "internal/queue/sched.go", `
		s.credit += int64
`, `
		if DEFECT {
			s.credit = -wholeShare
		}
		s.credit += int64
`},
	{ReasonsAlike, "internal/queue/retry.go", `if len(r.ByReason) == 0 || reason == "" {`, `if len(r.ByReason) == 0 || reason == "" || DEFECT {`},
	{PrioritiesDoNotAge, "internal/queue/sched.go", `
	return int64(time)*1e9 - int64(priority)*step
`, `
	if DEFECT {
		step = 1 << 54
	}
	return int64(time)*1e9 - int64(priority)*step
`},
	{AttemptLostDown, "internal/queue/lease.go", `
	if uncounted {
`, `
	if uncounted && !DEFECT {
`},
	{ProbeIgnored, "internal/queue/control.go", `
	if c.breaker != nil {
		a := breaker.Answer{
`, `
	if c.breaker != nil && !(DEFECT && c.state() == breaker.Probing) {
		a := breaker.Answer{
`},
	{AdaptiveIgnored, "internal/queue/control.go", `n, limited = c.limit.Limit(c.m.now)-c.inFlight, true`, `n, limited = c.limit.Limit(c.m.now)-c.inFlight, !DEFECT`},
	{ReportIgnored, "internal/queue/report.go", `
	if c.breaker == nil {
		return
	}
	was := c.state()
`, `
	if c.breaker == nil || DEFECT {
		return
	}
	was := c.state()
`},
	{LeaseCrossed, "internal/queue/coalesce.go", `return k.ahead != 0`, `return k.ahead != 0 && !DEFECT`},
	{SupersededRetried, "internal/queue/coalesce.go", `if !q.coalesces() || q.config.Coalesce.Keep == surgetank.KeepFirst {`, `if !q.coalesces() || q.config.Coalesce.Keep == surgetank.KeepFirst || DEFECT {`},
	{KeysForgotten, "internal/queue/snapshot.go", `
		case kindSnapKeys:
`, `
		case kindSnapKeys:
			if DEFECT {
				continue
			}
`},
	{ConditionIgnored, "internal/queue/meta.go", `c.Conditional && now.Version != c.Expected {`, `c.Conditional && now.Version != c.Expected && !DEFECT {`},
	{VersionsForgotten, "internal/queue/snapshot.go", `
		case kindSnapVersions:
`, `
		case kindSnapVersions:
			if DEFECT {
				continue
			}
`},
	{WatchedEarly, "internal/broker/turn.go", `
	b.noteAll(out.Notices, now)
`, `
	if DEFECT {
		b.watches.pass(out.Metas)
	}
	b.noteAll(out.Notices, now)
`},
	{WatchGap, "internal/broker/meta.go", `
	b.watches.pass(f.metas)
`, `
	if len(f.metas) > 0 && DEFECT && len(f.ops) > 1 {
		return
	}
	b.watches.pass(f.metas)
`},
	{TransferAckedEarly, "internal/shards/box.go", `
		stored, err = x.arrive()
`, `
		if DEFECT {
			x.unacked = x.unsent
			_ = x.ack()
			x.unacked = nil
		}
		stored, err = x.arrive()
`},
	{ArrivedNotRecorded, "internal/queue/arrive.go", `if moved {`, `if moved && !DEFECT {`},
	{ArrivedHighest, "internal/queue/arrive.go", `return i >= 0 && ps[i].seqs.Has(a.Seq)`, `return i >= 0 && (ps[i].seqs.Has(a.Seq) || DEFECT && ps[i].seqs[len(ps[i].seqs)-1].Last >= a.Seq)`},
	{OutboxForgotten, "internal/shards/mover.go", `door.OutboxOf(info.Name); ok {`, `door.OutboxOf(info.Name); ok && !DEFECT {`},
	{TimelineIgnored, "internal/queue/arrive.go", `return p.incarnation == incarnation })`, `return p.incarnation == incarnation || DEFECT })`},
	{ConfirmOfOneShard, "internal/shards/publish.go", `s.left = len(s.parts) + 1 //`, `if s.left = len(s.parts) + 1; DEFECT { s.left = 2 } //`},
	{OutboxShared, "internal/door/shard.go", `
	if redriven {
		return`, `
	if redriven && !DEFECT {
		return`},
	{TransferOvertaken, "internal/shards/box.go", `return x.wait.next(), true // the messages stay in this order`, `
				if len(x.unsent) > 1 && DEFECT {
					x.unsent = append(x.unsent[1:], x.unsent[0])
				}
				return x.wait.next(), true`},
	{OutboxOvertaken, "internal/queue/outbox.go", `if q != nil && (box == nil || box.empty()) {`, `if q != nil && (box == nil || box.empty() || DEFECT) {`},
	{ArrivedOnlyInMemory, "internal/queue/meta.go", `
func (d *metadata) restoreVersions(x *decoder) {
`, `
func (d *metadata) restoreVersions(x *decoder) {
	if DEFECT {
		delete(d.spaces, "shard.arrived")
	}
`},
}
