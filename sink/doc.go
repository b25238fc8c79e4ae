// Package sink writes the messages of a queue to a database table. It is a consumer inside
// Surgetank that writes each message's row exactly once. The targets are in sink/postgres and
// sink/sqlite; sink/sinktest is the test suite that both pass.
//
// # How exactly once works
//
// The broker delivers at least once. A message is delivered again until its ack is confirmed, and
// an ack is final. So the target must know which messages it has that may be delivered again, and
// must store this in the same transaction as their rows:
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
// A lane's row in the table surgetank_progress holds watermark and ids as of its last commit. An id
// is removed only after the floor has passed it. The target's knowledge must not depend on acks,
// because the data directory may lose them. Claim documents the comparison after one of the two
// stores was set back in time.
//
//	dispatch          hash(group) or hash(conflict key) picks the lane; other messages fill one batch after the other
//	   │
//	   ├─▶ lane 0 ─▶ batch ─▶ ┌ one transaction ─────────────────────────────┐ committed ─▶ acks ─▶ final: id is removed
//	   ├─▶ lane 1             │ lane's row: is it as I left it? batch+1, ids │              rejects (bad rows, with the
//	   └─▶ lane n             │ rows of the batch                            │              database's own words)
//	                          └──────────────────────────────────────────────┘ bad row ───▶ split with savepoints, park it,
//	                                                                                          commit the rest
//
// # One way to recover
//
// A session is one opening of the target (Target.Open). Opening is fencing. One transaction locks
// the rows of all lanes, merges their ids, divides them among the current lanes, and writes the
// next epoch into the rows. A commit of an earlier session may still be in flight. Either it
// succeeds first and the opening sees its ids, or it comes later and fails because its epoch is
// gone.
//
// # A row's fault, or the table's
//
// An error that one row may have caused does not end the session. The batch is split until the row
// is alone. Its error and other evidence decide about the message (see conclude): it is parked, or
// it goes to the lane's backlog and is retried. Messages of the same group or conflict key then
// wait for it. A batch that is too large is made smaller. Too many bad messages in sequence pull
// the brake.
//
// # What ends a session
//
// Some errors are not a row's fault and do not pass by themselves: a lost connection, a commit
// without an answer, a lost lease, a restart. The first such error ends the session. Its messages
// go back to the queue in their old positions, without counting an attempt. The next session reads
// from the target which messages were committed. So commits of unknown outcome need no protocol of
// their own. While the target is down, one connection probes it and no message is leased.
//
// # Goroutines and their owners
//
// A Manager owns the sinks of a broker and keeps their settings in the broker's metadata. A Runner
// owns one sink; its goroutine runs one session after the other. In a session each lane's goroutine
// owns one Lane of the target. The dispatcher's goroutine receives messages, the settler's handles
// the broker's answers, and the keeper's extends leases. They share the ledger.
package sink
