// Package timelines simulates a sink between two histories that are each put back in time: real
// brokers on logs in memory, real managers and runners of sinks, and a database in memory.
//
// A seed draws what happens: messages are published, the process or the connection is lost at each
// point of a commit, the data directory or the database is put back to an earlier moment, an old
// standby is promoted, a directory is copied and both go on, the user truncates the table, the
// progress is dropped. A naive judge then decides from what was published and written alone: each
// message is in the table once, or the sink has refused and names the right number. A sink that has
// refused takes one of its ways on and is judged again.
//
//	go test ./test/timelines                       # a few hundred seeds
//	go test ./test/timelines -seeds 20000          # more
//	go test ./test/timelines -one 42 -v            # one, with all that it drew
package timelines
