package broker

import "time"

// The loop has a time of its own. It begins where the wall clock stands, or where the log's newest
// entry was if that is later, and goes on by what passes: a clock that is set, forwards or
// backwards, neither ends all leases at once nor stops the delays until it has come back to where
// it was. Only after a restart the clock is believed again, if it is ahead.
//
// So the loop's time is what has passed on the clock and a constant, and everybody may ask for it.

// startTime begins the loop's time at an opening, when the clock stood at wall and so much had
// passed on it.
func (b *Broker) startTime(wall time.Time, passed time.Duration) {
	b.ahead = b.machine.TurnTime(wall.UnixNano()) - int64(passed)
}

// Now gives the time in which leases have their deadlines: the clock's, unless that was set while
// the broker ran. It never goes back.
func (b *Broker) Now() time.Time { return time.Unix(0, b.now()) }

// now gives the loop's time in nanoseconds since 1970.
func (b *Broker) now() int64 { return b.ahead + int64(b.clock.Passed()) }
