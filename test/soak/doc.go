// Command soak runs a real server at a share of its measured capacity for a long time. Connections,
// queues, groups, consumers, dedup ids, delays, expiries and dead letters come and go, and the
// server is killed without warning every half minute. The run shows two things from outside:
//
//   - No promise breaks: nothing confirmed is lost, nothing comes again after a confirmed ack,
//     groups keep their order.
//   - Nothing grows: after the load has stopped and everything was consumed and deleted, memory,
//     file descriptors, goroutines and disk are back at their earlier values. Latency at the end is
//     the same as at the beginning.
//
// # A run
//
//	warm-up    unpaced load: what the server and these clients can do on this machine
//	baseline   drained and deleted: what an idle server uses after load
//	killed     two thirds of the time at the chosen share of the capacity, a kill every 30 seconds
//	calm       the last third at the same load without kills, so that one process lives long enough to show a leak
//	end        drained and deleted again, compared with the baseline
//
// Package ledger (test/kit/ledger) has the journal and the judge.
//
// With -memory it does something else: see memory.go.
package main
