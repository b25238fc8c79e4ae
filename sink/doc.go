// Package sink moves the messages of a queue into a table: a consumer inside Surgetank that writes
// to a database, each message's row exactly once. The targets are in sink/postgres and sink/sqlite;
// sink/sinktest is the suite that both pass.
//
// # How exactly once comes about
//
// The broker delivers at least once: a message comes again until its ack is confirmed, and an ack
// is final. So it is enough that the target knows which messages it has that may be delivered
// again, and that it knows this in the same transaction as their rows:
//
//	      queue (by Seq)   ──────────────────────────────────────────────────────▶
//	      settled  settled  settled │ waiting  committed  leased  committed  new
//	                                │             ▲                  ▲
//	                       floor = watermark      └───── ids ────────┘
//
//	below the floor   settled for good: never delivered again
//	in ids            the row is committed and the floor has not passed it: delivered again, it is acked and not applied
//	all others        not applied, however high the ids above are: a retried message is no duplicate
//
// The row of a lane in the table surgetank_progress holds watermark and ids as of its last commit.
// An id leaves only when the floor has passed it: what the target knows must not depend on acks
// that the data directory may lose. See Claim for what is compared when one of the two stores was
// put back in time.
//
//	dispatch          hash(group) or hash(conflict key) picks the lane; other messages fill one batch after the other
//	   │
//	   ├─▶ lane 0 ─▶ batch ─▶ ┌ one transaction ─────────────────────────────┐ committed ─▶ acks ─▶ final: id leaves the set
//	   ├─▶ lane 1             │ lane's row: is it as I left it? batch+1, ids │             rejects (bad rows, with the
//	   └─▶ lane n             │ rows of the batch                            │             database's own words)
//	                          └──────────────────────────────────────────────┘ bad row ───▶ split behind savepoints, park it,
//	                                                                                         commit the rest
//
// # One way to recover
//
// A session is one opening of the target (Target.Open). Opening is fencing: in one transaction it
// locks the rows of all lanes, merges their ids, deals them out to the lanes of now, and writes the
// next epoch into them. A commit of an earlier session that is still on its way either comes first,
// then opening sees its ids, or it comes later and fails, because its epoch is gone.
//
// # A row's fault, or the table's
//
// An error that can be laid at one row's door does not end the session. The batch is split until
// the row is alone. What becomes of the row is decided by its error and by evidence (conclude): its
// message is parked, or it goes to the lane's backlog and is tried again, with the messages of its
// group or conflict key behind it. A batch that is too large is made smaller. Too many bad messages
// in sequence pull the brake.
//
// # What ends a session
//
// The first error of a session that is not a row's fault, nor one that passes by itself, is final
// for it: a lost connection, a commit without an answer, a lost lease, a restart. Its messages go
// back to the queue uncounted and in their old places, and the next session reads from the target
// what was committed. So there is no second protocol for commits of unknown outcome, and while the
// target is down there is one connection that probes it, and nothing is handed out.
//
// # Who runs what
//
// A Manager owns the sinks of a broker and keeps their settings in the broker's metadata. A Runner
// owns one sink; its goroutine runs one session after the other. In a session each lane's goroutine
// owns one Lane of the target; the dispatcher's goroutine receives, the settler's takes the
// broker's answers, the keeper's extends leases. The ledger is the memory that they share.
package sink
