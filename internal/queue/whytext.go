package queue

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/surgetank/surgetank"
)

// The sentences of the verdicts. Each function also sets the time when the verdict can end by
// itself, if this time is known. Only the sentences of a full explanation quote a consumer's reason
// or name, because everyone who sees the queue sees the other sentences.

// in returns the seconds until a time, and records it as the time when the verdict can end.
func (w *why) in(at int64) string {
	w.e.Until = timeAt(at)
	return fmt.Sprintf("%.1fs", max(0, float64(at-w.q.m.now)/1e9))
}

// until records the time when the verdict can end, and returns it as text.
func (w *why) until(at int64) string {
	w.e.Until = timeAt(at)
	return w.e.Until.Format(time.RFC3339)
}

func (w *why) sayMoving() string {
	return "The queue is moving to another shard. Its messages are delivered again when it is there."
}

func (w *why) sayPaused() string {
	end, note := "someone resumes it", w.q.pauseNote()
	if at := w.q.pauseEnds(); at != 0 {
		end = w.until(at)
	}
	text := "The queue is paused until " + end + "."
	switch {
	case note.at == 0:
	case note.by == "":
		text += " It was paused at " + timeAt(note.at).Format(time.RFC3339) + "."
	default:
		text += fmt.Sprintf(" It was paused by %s at %s.", note.by, timeAt(note.at).Format(time.RFC3339))
	}
	return text
}

func (w *why) sayNoConsumer() string { return "No consumer is attached." }

func (w *why) sayDamaged() string {
	q := w.q
	seq := w.seq
	if seq == 0 && len(q.held) > 0 {
		seq = math.MaxUint64
		// unordered: it looks for the smallest
		for held := range q.held {
			seq = min(seq, held)
		}
	}
	what := "; look at it with peek and state damaged, and drop it with purge and damaged"
	if s := q.slots.get(seq); seq != 0 && s != nil {
		own := q.damageOf(seq, s)
		if own == "" {
			seq = q.heldOf(s.flow)
			own = q.damageOf(seq, q.slots.get(seq))
		}
		text := fmt.Sprintf("Message %s cannot be read: %s.", q.idOf(seq), own)
		if group := q.groupName(s.flow); group != "" && q.config.Group.MaxInFlight > 0 && q.held[seq] != nil {
			text += fmt.Sprintf(" Group %q waits behind it%s.", group, what)
		} else {
			text += " It waits for you" + what + "."
		}
		if w.seq == 0 && q.damagedN > 1 {
			text += fmt.Sprintf(" %d messages are damaged.", q.damagedN)
		}
		return text
	}
	return fmt.Sprintf("%s cannot be read; look at them with peek and state damaged, and drop them with purge and damaged.", messages(q.damagedN))
}

// messages returns a number of messages as text.
func messages(n int64) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

func (w *why) sayLeased() string {
	q := w.q
	l := q.leases[w.seq]
	if l == nil { // the group has leased messages only
		w.holders(false)
		return fmt.Sprintf("No message of group %q waits; %d are in flight%s.", w.e.Group, q.flows[w.h].inflight, w.held())
	}
	w.e.Leases = []surgetank.LeaseHolder{q.holder(l)}
	return fmt.Sprintf("It is in flight: consumer %s holds it since %s%s.", w.e.Leases[0].Who(), w.e.Leases[0].Since.Format(time.RFC3339), w.leaseEnd(l))
}

func (w *why) leaseEnd(l *lease) string {
	if l.deadline == 0 {
		return ", until it settles it or goes away"
	}
	return ", until " + w.until(l.deadline) + " at the latest"
}

// held names the oldest lease that blocks.
func (w *why) held() string {
	if len(w.e.Leases) == 0 {
		return ""
	}
	x := w.e.Leases[0]
	w.e.Until = x.Until
	return fmt.Sprintf("; consumer %s holds %s since %s", x.Who(), x.ID, x.Since.Format(time.RFC3339))
}

func (w *why) sayDelayed() string {
	at := w.q.slots.get(w.seq).nanos()
	if x, ok := w.q.firstDelayed(); ok && x.key == w.seq {
		at = x.at
	}
	return fmt.Sprintf("The publisher of message %s asked for delivery at %s.", w.e.ID, w.until(at))
}

func (w *why) sayBackOff() string {
	at := w.q.tryAt(w.seq)
	w.e.NextTry = timeAt(at)
	text := fmt.Sprintf("Attempt %d of message %s failed", w.e.Attempt, w.e.ID)
	switch {
	case w.e.Attempt == 0:
		text = fmt.Sprintf("Message %s was returned", w.e.ID)
	case w.full:
		text += ": " + cmp.Or(w.e.Failure, "no reason was given")
	}
	return text + ". The next is in " + w.in(at) + "."
}

func (w *why) sayBudget() string {
	at := w.q.budget.retryAllowedAt()
	w.e.NextTry = timeAt(at)
	return fmt.Sprintf("Retries used their share of %.4g %% of first attempts (retry.budget). The next is allowed in %s.", w.q.config.Retry.Budget*100, w.in(at))
}

func (w *why) sayGroupInFlight() string {
	f := &w.q.flows[w.h]
	w.holders(false)
	return fmt.Sprintf("Group %q has %d of %d in flight (group.max_in_flight)%s.", w.e.Group, f.inflight, w.q.groupLimit(f), w.held())
}

func (w *why) sayKeyBusy() string {
	if w.seq == 0 {
		return "All messages wait for earlier messages with the same coalescing keys, which are in flight or cannot be read."
	}
	return fmt.Sprintf("Message %s with the same coalescing key comes first.", w.q.idOf(w.q.slots.key(w.seq).ahead))
}

func (w *why) sayCollects() string {
	return fmt.Sprintf("Its coalescing key collects changes for %s more (coalesce.window).", w.in(w.q.slots.key(w.seq).due))
}

func (w *why) sayGroupRate() string {
	return fmt.Sprintf("group.rate allows group %q the next in %s.", w.e.Group, w.in(rateDue(w.q.flows[w.h].tat, w.q.config.Group.Rate, 1)))
}

func (w *why) sayBehind() string {
	first := w.q.whyOwn(w.q.frontOf(w.h))
	if w.full {
		first = w.q.whyMessage(first.seq)
		first.full = true
	}
	e := first.explain()
	w.e.Until, w.e.Leases, w.e.NextTry, w.e.Behind = e.Until, e.Leases, e.NextTry, &e
	waits := " waits because: " + e.Text
	if first.v == mayGo {
		waits = " may go."
	}
	if !w.full {
		return fmt.Sprintf("Messages of group %q are ahead, the first%s", w.e.Group, waits)
	}
	if w.e.Ahead = w.q.ahead(w.h, w.seq); w.e.Ahead == 1 {
		return fmt.Sprintf("1 message of group %q is ahead. It%s", w.e.Group, waits)
	}
	return fmt.Sprintf("%d messages of group %q are ahead, the first%s", w.e.Ahead, w.e.Group, waits)
}

func (w *why) sayLevelInFlight() string {
	w.holders(true)
	return fmt.Sprintf("level.max_in_flight %d is reached%s.", w.q.config.Level.MaxInFlight, w.held())
}

func (w *why) sayLevelRate() string {
	l := &w.q.config.Level
	return "level.rate allows the next in " + w.in(rateDue(w.q.tat, l.Rate, l.Burst)) + "."
}

func (w *why) sayNoCredit() string {
	w.holders(true)
	if n := w.q.consumers.n; n > 1 {
		return fmt.Sprintf("All %d consumers hold as much as they asked for%s.", n, w.held())
	}
	return "The only consumer holds as much as it asked for" + w.held() + "."
}

func (w *why) sayTurn() string {
	if w.seq == 0 {
		return "Messages are delivered now."
	}
	w.e.Turn = w.q.turnOf(w.h, w.seq, w.full)
	text := w.q.waitsTurn(w.h)
	switch {
	case w.e.Turn > 0:
		return fmt.Sprintf("It may go. About %d deliveries of others come first%s.", w.e.Turn, text)
	case text != "":
		return "It may go" + text + "."
	}
	return "It may go now."
}

func (w *why) sayNothing() string {
	switch n := w.q.leased; n {
	case 0:
		return "No message is in the queue."
	case 1:
		return "No message waits; 1 is in flight."
	default:
		return fmt.Sprintf("No message waits; %d are in flight.", n)
	}
}
