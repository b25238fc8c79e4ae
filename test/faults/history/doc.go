// Package history is what the fault campaign knows: a journal of every call its clients made, with
// times and outcomes, and checkers that decide from the journal alone whether a promise was broken.
// It knows neither the server nor the faults, so that no defect of the server can hide in what both
// believe.
//
// The outcome of a call is one of three, and the whole proof rests on telling them apart:
//
//	ok    the server said yes. It happened, between Call and Return.
//	fail  the server said no, or the request never left. It did not happen, and never will.
//	info  the answer was lost (time-out, reset, the server died). It may have happened, may happen later, or never.
//
// Every published value is unique (publisher-sequence), so that a delivery can be traced to the one
// publish it came from. A run ends with a drain: faults off, publishers at rest, consumers taking
// until the queues are empty. Without a complete drain nothing can be said about loss, and the
// verdict is unknown, which counts as a failure.
//
// The checkers take a *History and give Findings; they write nothing and keep nothing. Each is
// tested with histories into which a defect was put by hand, so that a checker that has gone blind
// is seen.
package history
