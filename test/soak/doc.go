// Command soak holds a real server at a share of its measured capacity for a long time, with
// everything coming and going: connections, queues, groups, consumers, dedup ids, delays, expiries,
// dead letters, and the server itself, which is killed without warning every half minute. It proves
// two things from outside:
//
//   - No promise breaks: nothing confirmed is lost, nothing comes again after a confirmed ack,
//     groups keep their order.
//   - Nothing grows: when the load has stopped and everything was taken out and deleted, memory,
//     file descriptors, goroutines and disk are back where they were before, and latency at the end
//     is what it was at the beginning.
//
// # A run
//
//	warm-up    unpaced load: what the server and these clients can do on this machine
//	baseline   drained and deleted: what an idle server holds after load
//	killed     two thirds of the time at the chosen share of the capacity, a kill every 30 seconds
//	calm       the last third at the same load without kills, so that one process lives long enough to show a leak
//	end        drained and deleted again, compared with the baseline
//
// # The journal
//
// A run has tens of millions of messages, so nothing is kept of a message for longer than it can
// matter. A stream is what one publisher sends to one queue in one group; its messages are
// numbered, and the ledger holds the state of those above the stream's base. A message leaves it a
// few seconds after its ack was confirmed. From then on its number being below the base says all:
// it must not be seen again. What stays open for long because an answer was lost is put aside by
// name.
//
// # Times
//
// A delivery is known to have left the server after a certain moment: over HTTP after its receive
// was called, over AMQP after the last call on the same channel that was answered before it was
// called. Only what is certain by these times is a finding.
//
// With -memory it does something else: see memory.go.
package main
