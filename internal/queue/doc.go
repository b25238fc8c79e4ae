// Package queue is the deterministic machine: all rules of all queues of one broker.
//
// The machine receives the time and commands. It returns records (facts to be logged), results and
// hand-outs. It has no I/O, goroutine, lock, clock, context or global randomness, so the same
// commands at the same times produce the same bytes. Only one goroutine uses a machine.
//
//	command ──▶ step_*.go decide ──▶ Record ──▶ encode into the turn's entry
//	                                   │
//	                                   └─────▶ replay.go apply: the only change of durable state,
//	                                           the same at the first time and at recovery
//
// Durable state is the result of the records: queues and settings, messages (position in the log,
// group, priority, not-before, attempts), dedup ids, publishers and their confirmed numbers,
// dead-letter notes, metadata. Volatile state is empty after recovery: consumers, credit, leases,
// rate tokens. The ready and delayed indexes are rebuilt from the durable state.
//
// The machine stores positions and sizes, not bodies. A waiting message needs 28 bytes.
package queue
