// Package sim runs the whole broker, machine, loop and log, under clients, crashes, faults and
// clocks that all come from one seed, on one goroutine, and judges it three ways at every step.
//
//	seed ──▶ Options (which features, which faults, how often) ──▶ a list of actions
//	           │
//	           ▼
//	world: clients ──▶ broker (driven by hand) ──▶ memlog or disklog ──▶ crashable file system
//	           │               │ every turn                                   │ at many of its changes
//	           ▼               ▼                                              ▼
//	ledger            beside: the naive model                       prober: what would be left if the power failed
//	what clients      does the same turn; hand-outs, answers        now? recover that beside the run, sometimes with
//	were told         and counts must be equal                      the power failing again, and compare each message
//
//	ledger: nothing confirmed is lost, nothing comes back after a confirmed ack, nothing was seen that a crash took back,
//	        order in strict groups, one lease at a time, one message a dedup id, transactions whole, counts add up
//
// A random part of the features and faults is on in each seed. A run has a part with faults and
// then a healed part, in which everything that is left must come out. The same seed gives the same
// run. A run that failed is made smaller by leaving out actions and options, and printed as a
// script that a test can play again. What runs reached is counted by Point; a campaign in which one
// was never reached fails, so that an idle simulator is seen.
//
// Not compared with the model: back-off jitter (the model's seeds have none), who of several queues
// is served first, and turns that are cut in two by a small TurnBytes; those seeds run with the
// other two judges. A clock that is set forwards cannot be told from time that passes here;
// test/faults sets a real one.
package sim
