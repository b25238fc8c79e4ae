// Command targets puts both sides of a sink through real life: seeded rounds with a real
// `surgetank serve` and a real PostgreSQL or SQLite, in which the table is migrated, either side is
// put back in time, standbys that lag are promoted, partitions come and go, disks fill, statements
// time out, processes are killed, and data directories are copied.
//
//	go run ./test/targets                    # a few rounds
//	go run ./test/targets -rounds 300        # the campaign
//	go run ./test/targets -seed 42           # the round of one seed again
//	go run ./test/targets -with failover     # only rounds with this action
//	go run ./test/targets -list              # the actions
//
// After each round all faults are mended. Then each confirmed message is in the table once, or it
// was parked for a fault of its own, or the sink has stopped and its words name how many messages
// are missing (package judge). A sink that has stopped takes one of the documented ways on, and
// only the messages that this way names may be doubled, skipped or lost.
//
// It knows the server by its documented surface alone and needs Linux, PostgreSQL's programs and,
// for full disks, root.
package main
