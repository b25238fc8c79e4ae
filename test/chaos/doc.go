// Command chaos proves the promise that matters most on the whole path and on real processes: lines
// of an NDJSON file go through `surgetank publish` into a PostgreSQL table, grouped and by several
// lanes, while kill -9 hits the Surgetank server and PostgreSQL in turn. It then asks the database
// itself: is every line there exactly once, with the bytes it had, and in order inside its group?
//
// It starts a PostgreSQL cluster of its own in a temporary directory and needs its server programs
// (initdb, postgres). The moments of the kills come from a seed, as shares of the progress, so that
// all of them fall into the run.
//
//	go run ./test/chaos                        # a generated input, 200,000 messages, 10 kills each
//	go run ./test/chaos -input events.ndjson   # any NDJSON, repeated to -messages lines
package main
