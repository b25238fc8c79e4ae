package broker

import "time"

// The loop has its own time. It starts at the wall clock's time, or at that of the log's newest
// entry if that is later. From then on it advances by the time that passes. So setting the clock
// does not end all leases at once, and does not stop delays. Only an opening adopts the clock's
// time, if the clock is ahead.
//
// The loop's time is clock.Passed plus a constant, so any goroutine may read it.

// startTime starts the loop's time at an opening. wall is the clock's time, and passed is
// clock.Passed at that moment.
func (b *core) startTime(wall time.Time, passed time.Duration) {
	b.ahead = b.machine.TurnTime(wall.UnixNano()) - int64(passed)
}

// Now returns the time against which lease deadlines are measured. It equals the clock's time
// unless the clock was set while the broker ran. It never goes back.
func (b *core) Now() time.Time { return time.Unix(0, b.now()) }

// now returns the loop's time in nanoseconds since 1970.
func (b *core) now() int64 { return b.ahead + int64(b.clock.Passed()) }
