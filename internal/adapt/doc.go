// Package adapt finds the number of jobs that a target can process at the same time. A job is a
// lease of a message, or a batch of a sink. A Controller is told when jobs begin and end. It sets a
// limit of jobs in flight and a batch size.
//
// A Controller has no goroutine, no lock, no clock and no random numbers. Times are nanoseconds
// since any fixed moment. The same calls lead to the same state, so the calls can be repeated to
// check a Controller.
//
// # Algorithm
//
// The algorithm is called interleaved gradient control. It alternates between two phases:
//
//   - In a probe, the limit is Settings.Min. The latency of some jobs is measured.
//   - In a load phase, the working limit applies. Latency is measured in windows of at least 8 jobs
//     and 0.1 seconds. The phase is nine times as long as the probe, so probes need about a tenth
//     of the time.
//
// After each probe the working limit is multiplied by √(tolerance ÷ ratio), within 0.75 and 1.33.
// The ratio is the median latency under load divided by the median latency of the last probes. The
// code calls this rule the law.
//
// # Power
//
// Power is throughput ÷ latency. By Little's law, a limit has more power than another one if its
// latency is less than √(limit ÷ other limit) times as long. The rule is used in three places:
//
//   - Above the tolerance, slow start goes on while power grows. The law then keeps the ratio that
//     slow start found. From a settled limit, slow start begins again now and then.
//   - At small limits of batches, the law accepts no ratio that means less power than at Settings.Min.
//   - Trials in probes find the batch size with the most power.
//
// # Use
//
// The owner calls Tick when the time Next has come. It hands out jobs while InFlight is below
// Limit. It calls Handed for each job, Answered for its end, and Extended for an extended lease.
// With a breaker, it calls Reset when the breaker opens, and passes RampWindows to breaker.Ramped.
//
// # Sources
//
// Parts of the algorithm come from published ones, and parts avoid their known problems:
//
//   - Netflix concurrency-limits, Gradient2Limit.java: the limit follows a ratio of latencies, with
//     a square root and a tolerance. Gradient2 divides by a long average of latency under load, so
//     its own congestion raises the average and then the limit (issue 137).
//
//   - Envoy's adaptive concurrency filter: the reference latency is measured at a minimal
//     concurrency. Meanwhile Envoy refuses requests (issue 8337), but here messages only wait.
//
//   - Envoy's early samples spoil a measurement (issue 11579). Here a probe begins after all older
//     jobs have ended.
//
//   - Vector's adaptive request concurrency: errors that do not show congestion are not latency
//     (issues 4082 and 26124).
//
//   - TCP: slow start after a start and after idle time, and halving the limit after a refusal,
//     once per round trip (RFC 5681).
//
//   - Kleinrock: power (ICC 1979, "Power and deterministic rules of thumb").
//
//   - Jain: a window grows while latency grows less than in proportion ("A delay-based approach for
//     congestion avoidance", 1989). Decision 0196 says why this is limited to slow start.
//
// The medians over several probes are this project's own. A single probe is too noisy, and a
// minimum over time gets stuck on targets whose speed changes. Vegas is as fast in short tests, but
// in long tests its minimum becomes outdated. Decision 0173 has the comparison.
package adapt
