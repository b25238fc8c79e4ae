// Command targets tests a sink against events of real operation. Seeded rounds run a real
// `surgetank serve` and a real PostgreSQL or SQLite. The table is migrated, the target or the data
// directory is put back in time, lagging standbys are promoted, partitions are created and
// detached, and disks fill. Statements time out, processes are killed, and data directories are
// copied.
//
//	go run ./test/targets                    # a few rounds
//	go run ./test/targets -rounds 300        # the campaign
//	go run ./test/targets -seed 42           # the round of one seed again
//	go run ./test/targets -with failover     # only rounds with this action
//	go run ./test/targets -list              # the actions
//
// At the end of each round all faults are undone. Then each confirmed message must be in the table
// once, or parked because its own value is bad. Otherwise the sink must have stopped, and its error
// must name the number of missing messages (see package judge). A stopped sink continues in one of
// the documented ways, and only messages that this way announces may be doubled, skipped or lost.
//
// The campaign uses only the server's documented interfaces. It needs Linux, PostgreSQL's programs
// and, for full disks, root.
package main
