// Command chaos tests the most important promise, that each message becomes one row, with real
// processes. `surgetank publish` sends the lines of an NDJSON file to a PostgreSQL table, with
// groups and several lanes. Meanwhile kill -9 ends the Surgetank server and PostgreSQL alternately.
// Then the database must contain every line exactly once, with unchanged bytes, and in order inside
// its group.
//
// It starts a PostgreSQL server of its own in a temporary directory and needs the server programs
// (initdb, postgres). A seed decides after which numbers of rows the kills happen, so that all
// kills happen during the run.
//
//	go run ./test/chaos                        # a generated input, 200,000 messages, 10 kills each
//	go run ./test/chaos -input events.ndjson   # any NDJSON, repeated to -messages lines
package main
