// Package sim runs the whole broker (machine, loop and log) on one goroutine, with clients,
// crashes, faults and clocks that all come from one seed. At every step it checks the broker in
// three ways.
//
//	seed ──▶ Options (which features, which faults, how often) ──▶ a list of actions
//	           │
//	           ▼
//	world: clients ──▶ broker (stepped)     ──────▶ memlog or disklog ──▶ crashable file system
//	           │               │ every turn                                   │ at many of its changes
//	           ▼               ▼                                              ▼
//	ledger            beside: the naive model                       prober: what would be left if the power failed
//	what clients      runs the same turn; hand-outs, answers        now? It recovers that, sometimes with another
//	know              and counts must be equal                      power failure, and compares each message
//
//	ledger: nothing confirmed is lost, nothing comes back after a confirmed ack, no delivered message is undone by a crash,
//	        order in strict groups, one lease at a time, one message for each dedup id, whole transactions, right counts
//
// A random part of the features and faults is on in each seed. A run has a part with faults and
// then a healed part, in which all remaining messages must be delivered. The same seed results in
// the same run. A failed run is made smaller by leaving out actions and options, and printed as a
// script that a test can run again. A Point is an event that runs reach, such as a kind of fault. A
// campaign fails if it never reached one of the points, so that an idle simulator is noticed.
//
// Every seventh seed has two or three shards (shardworld.go): a stepped router over stepped
// brokers, each with its own disk. These runs have a world, a ledger and a prober of their own,
// because a crash state is the state of all shards. The ledger checks that each message is in
// exactly one shard, and that transfers keep their order. These runs have no model.
//
// In some runs the log is like a remote one (late.go): appends last some time, several entries are
// in flight, and a crash leaves a prefix of them.
//
// Three things are not compared with the model: back-off jitter (seeds with the model have none),
// the order of service among several queues, and turns that a small TurnBytes splits. Seeds with
// such turns use the other two checks. The simulator cannot distinguish a clock that is set forward
// from passing time; test/faults sets a real clock.
package sim
