// Package history is the knowledge of the fault campaign: a journal of every client call, with
// times and outcomes, and checkers that decide from the journal alone whether a promise was broken.
// The package knows neither the server nor the faults, so no wrong assumption shared with the
// server can hide a defect.
//
// A call has one of three outcomes, and every check depends on the difference:
//
//	ok    the server said yes. It happened, between Call and Return.
//	fail  the server said no, or the request was never sent. It did not happen, and never will.
//	info  the answer was lost (time-out, reset, the server died). It may have happened, may happen later, or never.
//
// Every published value is unique (publisher-sequence), so a delivery can be traced to its publish.
// A run ends with a drain: faults are off, publishers have stopped, and consumers empty the queues.
// Without a complete drain loss cannot be judged, and the verdict is unknown, which counts as a
// failure.
//
// The checkers take a *History and return Findings; they write and keep nothing. Each is tested
// with histories that contain a defect, so a checker that finds nothing is noticed.
package history
