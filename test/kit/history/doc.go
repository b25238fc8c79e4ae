// Package history has the journal and the checkers of a campaign. The journal has every client call
// with its times and outcome. The checkers decide from the journal alone whether a promise was
// broken. The package knows neither the server nor the faults, so no wrong assumption shared with
// the server can hide a defect.
//
// A call has one of three outcomes, and every check depends on the difference:
//
//	ok    the server said yes. The call took effect between Call and Return.
//	fail  the server said no, or the request was never sent. The call has no effect, now or later.
//	info  the answer was lost (time-out, reset, the server died). The call has an effect now, later or never.
//
// Every published value is unique (publisher-sequence), so a delivery can be traced to its publish.
// A run ends with a drain: faults are off, publishers have stopped, and consumers empty the queues.
// Without a complete drain, loss cannot be judged. The verdict is then unknown, which counts as a
// failure.
//
// The checkers take a *History and return Findings; they have no other effect. Each checker is
// tested with histories that contain a defect, so a checker that never finds anything fails its
// test.
package history
