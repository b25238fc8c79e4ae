// Package timelines simulates a sink while its data directory or its database is put back in time.
// It uses real brokers with in-memory logs, real managers and runners of sinks, and an in-memory
// database.
//
// A seed decides the events. Messages are published. The process or the connection is lost at each
// point of a commit. The data directory or the database is put back to an earlier moment, or an old
// standby is promoted. A directory is copied and both copies run. The user truncates the table, or
// drops the progress. A naive judge then decides only from the published and written messages. Each
// message must be in the table once, or the sink must have refused its target and named the right
// number of missing messages. A refused sink continues in one of the ways that it offers, and is
// judged again.
//
//	go test ./test/timelines                       # a few hundred seeds
//	go test ./test/timelines -seeds 20000          # more seeds
//	go test ./test/timelines -one 42 -v            # one seed, with all its events
package timelines
