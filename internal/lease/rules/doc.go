// Package rules decides which node of a cluster owns which log. It is the core of package lease: it
// has no I/O, goroutine, clock or randomness. Step gets the time and events, and returns actions.
//
//	bucket changes ─┐                        ┌─► Write   a key of the bucket
//	answers ────────┤                        ├─► Ping    another node
//	connection ─────┼──► Core.Step(now, …) ──┼─► Rewatch the bucket
//	calls ──────────┤                        ├─► Began, Leave, Lost   a term of this node
//	ticks ──────────┘                        └
//
// # The bucket
//
// The bucket has one key for each log and one for each node. Every write of a log's key names the
// revision that it replaces, so of two writers one is refused. A node's key has one writer, and is
// written as a heartbeat. All keys have a time to live.
//
// The watch shows all changes of the bucket in one order, the order of their revisions. A node sees
// its own heartbeats there, as echoes. At an echo, the node has seen every change that was stored
// before that heartbeat.
//
// # When a term ends
//
// A term of this node ends at the first of these events:
//
//   - The watch shows a newer value of another writer, or that the key was removed.
//   - A renewal is refused. If an earlier write of the key has no answer, that write can be the
//     cause of the refusal. Then the watch decides at the next echo.
//   - No renewal was confirmed for the time to live, counted from the sending of the newest
//     confirmed one.
//   - The node resigned, or had to leave and did not resign in time.
//
// # When another node is dead
//
// Silence of a node is counted from echo to echo, so only while this node can write to the bucket
// and sees the result. After a longer pause between two echoes, the count begins at zero for all
// nodes: a bucket without a leader must not move any log. A node is dead
//
//   - after DeadAfter of silence, or
//   - after some silence and two pings without a responder.
//
// The key of a dead node's log is replaced by compare-and-set. A vacant key is replaced in the same
// way. Each node calculates the order of all heirs of a key. The first heir writes at once, and
// each further one waits Stagger longer.
package rules
