// Package breaker decides whether a queue's target is down. It distinguishes a target that is down
// from a message that is bad. While a breaker is open, its owner hands out no messages and counts
// no attempts.
//
//	state    event                                                          next
//	-------  -------------------------------------------------------------  -----------------------
//	closed   Down, without a sign of life in the last 5 answers             open
//	closed   error share: see below                                         open
//	closed   two messages timed out, and nothing came back between          open
//	any      command open, command close                                    held, ramp
//	open     the pause is over: 1 s, × 1.5, at most 30 s, or Retry-After    probing
//	probing  the probe succeeded, or its message is bad                     ramp
//	probing  the probe failed, or has no answer in max(5 s, 10 × latency)   open, with a longer pause
//	ramp     three windows of slow start, or the queue's limit is reached   closed
//	ramp     Down, error share or silence                                   open, with the same pause
//
// Error share means that all of these are true:
//
//   - There were at least 20 answers in 10 seconds.
//   - At least half of these answers are failures without a known cause (Failed).
//   - The failures are of at least 5 groups. Each message without a group counts as a group.
//   - The last 10 answers have no sign of life.
//
// With Settings.ReportsOnly, only Down reports and commands open a breaker.
//
// A consumer can also report the target without a message (see Breaker.Reported).
//
// A sign of life is a success or a message that the target refused as bad. If only messages are
// bad, there are signs of life between the failures. If the target is down, there are none.
//
// # Attempts
//
// A breaker remembers the last 64 failures. When it opens, its owner returns the attempts of the
// failures that led to it (Refunds). An answer with Verdict.Uncounted costs no attempt either. A
// failed last attempt would park its message before the breaker can open. So the owner delays such
// a message for ParkDelay before it parks the message.
//
// # Use
//
// A Breaker has no goroutine, no lock, no clock and no random numbers. Times are nanoseconds since
// any fixed moment. The owner asks MayHand before it hands out a message, calls ProbeHanded for a
// probe, and Answered for the end of each lease. It calls Tick when the time Next has come.
//
// A half-open circuit breaker without a deadline can wait for ever (resilience4j issue 903), so a
// probe has a deadline. Decision 0174 has the reasons for the rules.
package breaker
