// Command soak runs a real server at a share of its measured capacity for a long time. Connections,
// queues, groups, consumers, dedup ids, delays, expiries and dead letters are created and end all
// the time, and the server is killed without warning every half minute. The run shows two things
// from outside:
//
//   - No promise breaks: nothing confirmed is lost, no message is delivered again after a confirmed
//     ack, groups keep their order.
//   - Nothing grows: after everything was consumed and deleted, memory, file descriptors,
//     goroutines and disk are back at their earlier values. Latency at the end is the same as at
//     the beginning.
//
// # A run
//
//	warm-up    unpaced load: measures the capacity of the server with these clients on this machine
//	baseline   all queues are drained and deleted: measures the resources of an idle server after load
//	killed     two thirds of the time at the chosen share of the capacity, a kill every 30 seconds
//	calm       the last third at the same load without kills, so that one process lives long enough to show a leak
//	end        all queues are drained and deleted again, and the resources are compared with the baseline
//
// Package ledger (test/kit/ledger) has the journal and the judge.
//
// With -memory the program instead tests that memory is limited: see memory.go.
package main
