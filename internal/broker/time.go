package broker

import "time"

// The loop has a time of its own. It begins where the clock stands, or where the log's newest entry was if that is
// later, and goes on by what passes: a clock that is set, forwards or backwards, neither ends all leases at once nor
// stops the delays until it has come back to where it was. Only after a restart the clock is believed again, if it is ahead.

// startTime begins the loop's time at an opening.
func (b *Broker) startTime(clock time.Time) {
	b.looked = clock
	b.time = b.machine.TurnTime(clock.UnixNano())
	b.skew.Store(b.time - clock.UnixNano())
	b.reached.Store(b.time)
}

// Now gives the time in which leases have their deadlines: the clock's, unless that was set while the broker ran.
func (b *Broker) Now() time.Time {
	return time.Unix(0, max(b.clock.Now().UnixNano()+b.skew.Load(), b.reached.Load()))
}

// now gives the loop's time in nanoseconds since 1970. It is for the loop alone; others add skew to the clock.
func (b *Broker) now() int64 {
	t := b.clock.Now()
	if passed := t.Sub(b.looked); passed > 0 { // by the monotonic clock, where there is one
		b.time += int64(passed)
	}
	b.looked = t
	if skew := b.time - t.UnixNano(); skew != b.skew.Load() {
		b.skew.Store(skew)
	}
	b.reached.Store(b.time)
	return b.time
}
