// Command demolevel shows what the adaptive level and the breaker do for a database that other
// users need. It starts a PostgreSQL server and a Surgetank server of its own. A foreground load
// runs all the time: short transactions that arrive at random moments, at a fixed mean rate.
//
// First it measures the latency of the undisturbed foreground. Then the same backlog is drained by
// 64 naive workers and by a queue with `level.adaptive`, first with single rows. With batches, a
// PostgreSQL sink drains the adaptive queue. At the end, adaptive drains are disturbed: other
// queries slow the database down, kill -9 ends it, and it is started again.
//
// It prints a table, and with -out writes the table and plots over time into a directory.
//
//	go run ./test/demolevel -out bench/results   # about four minutes
//	go run ./test/demolevel -short               # a smoke run, whose figures mean nothing
//	go run ./test/demolevel -fixed -calm 0.15    # what fixed limits, lanes and batches reach
package main
