// Package lease decides which node of a cluster owns which log, with a key-value bucket of NATS
// JetStream. A Node is one process. It campaigns for logs, and gets a Term for each log that it
// owns.
//
//	supervisor of a log             Node (one goroutine)                 NATS
//	  Campaign("l01") ───────────►  ┌────────────┐  publish  ┌──────────────────────────────┐
//	  ◄─── Term: open the log ────  │ rules.Core │ ────────► │ bucket SURGETANK_OWN         │
//	  ◄─── Leave: close it, Resign  │            │ ◄──────── │   log.l01   → owner, term    │
//	  ◄─── Lost: stop at once ────  │            │  watch    │   node.7f3a → heartbeat      │
//	  Owner, Table ◄──────────────  └────────────┘ ◄───────► └──────────────────────────────┘
//	                                                 ping     surgetank.node.<id>
//
// A supervisor of a log follows while another node is the owner, and opens the log in each term:
//
//	terms, err := node.Campaign("l01")
//	for term := range terms {
//		// open the log, which fences earlier owners, and serve
//		select {
//		case <-term.Leave(): // finish calls, close the log
//			term.Resign()
//		case <-term.Lost(): // close the log, whose entries in flight can be void
//		}
//	}
//
// If a log cannot be opened and no retry can help, the supervisor calls Withdraw. Another node then
// acquires the log.
//
// # The lease is not the lock
//
// The lease is for liveness only: it says which node should open a log, and how soon after a
// failure another node does. It does not make a log safe. Two nodes can believe to own a log at the
// same time, because a process can be stopped at any instruction, and because clocks differ. The
// fence in the log decides: opening a log excludes all earlier owners, and a write of an earlier
// owner is void.
//
//	node A   ──term 17──────────────── stopped ────────── wakes up: believes to be the owner
//	                                     │                   │ append ──► refused by the log's fence
//	node B                               └ 3 s ─► term 42: opens the log (fence), serves
//	                                                         │
//	node A                                            sees term 42 on the watch: Lost
//
// So an owner needs no check before a write, and no clock of two computers is compared. A wrong
// lease costs time, but no message.
//
// # How it is stored
//
// The bucket has three replicas, a history of 1, and LimitMarkerTTL, which all keys with a time to
// live need. A key is a message of the subject $KV.SURGETANK_OWN.<key>. All writes of a log's key
// have the header Nats-Expected-Last-Subject-Sequence with the revision that the writer has seen,
// so of two nodes only one acquires a log. All writes have the header Nats-TTL. If all nodes stop,
// the keys end by themselves.
//
// # Times
//
// With the defaults, a node writes a heartbeat each 0.5 s, and renews each log every 3 s. A node
// whose process has ended is found by two pings without a responder, after about 1.5 s. A node that
// hangs or is cut off is dead after 3 s of silence. If nobody can write, for example while the
// bucket's stream has no leader, silence does not count, and no log moves. The time to live is 15
// s. All durations are measured by the monotonic clock of one process; only the time to live is
// also measured by the servers.
//
// Package rules has the rules, without I/O, and a model of the bucket for tests.
package lease
