// Package sim runs the whole broker, machine, loop and log, under clients, crashes, faults and clocks that all come from
// one seed, on one goroutine, and judges it by what the clients saw.
//
//	seed ──▶ Options (which features, which faults, how often) ──▶ a list of actions
//	           │
//	           ▼
//	world: clients ──▶ broker (driven by hand) ──▶ memlog or disklog ──▶ crashable file system
//	           │ everything that a client sent, and what it was told
//	           ▼
//	ledger: nothing confirmed is lost, nothing comes back after a confirmed ack, nothing was seen that a crash took back,
//	        order in strict groups, one lease at a time, one message a dedup id, transactions whole, counts add up
//
// A run has a part with faults and then a healed part, in which everything that is left must come out. A run that failed
// is made smaller by leaving out actions, and printed; the same seed gives the same run.
package sim
