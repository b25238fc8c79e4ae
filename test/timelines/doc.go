// Package timelines simulates a sink whose two sides are each put back in time. It uses real
// brokers with in-memory logs, real managers and runners of sinks, and an in-memory database.
//
// A seed draws the events. Messages are published; the process or the connection is lost at each
// point of a commit; the data directory or the database is put back to an earlier moment; an old
// standby is promoted. A directory is copied and both copies run; the user truncates the table; the
// progress is dropped. A naive judge then decides only from the published and written messages.
// Each message must be in the table once, or the sink must have refused with the right number. A
// refused sink continues in one of its ways and is judged again.
//
//	go test ./test/timelines                       # a few hundred seeds
//	go test ./test/timelines -seeds 20000          # more
//	go test ./test/timelines -one 42 -v            # one, with all that it drew
package timelines
