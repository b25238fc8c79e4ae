//go:build linux

package main

// scenarios is the whole campaign, in the order it runs. The numbers are those of the project's list of faults.
var scenarios = append([]scenario{
	{id: "P1", quick: true, fault: "kill -9 at random moments under load", run: killRandomly},
	{id: "P2", fault: "kill -9 at the n-th system call", needs: canTrace, run: killAtCall},
	{id: "P4", quick: true, fault: "kill -9 during recovery, twice", needs: canTrace, run: killRecovery},
	{id: "P5", fault: "stopped (SIGSTOP) for longer than a lease", run: stopAndContinue},
	{id: "P6", quick: true, fault: "SIGTERM under load", run: terminate},
	{id: "D8", quick: true, fault: "fdatasync fails once with EIO", needs: canTrace, run: failingCall([]string{"fdatasync"}, []string{"EIO"}, true)},
	{id: "D9", quick: true, fault: "a write fails once with EIO", needs: canTrace, run: failingCall([]string{"pwrite64", "pwritev"}, []string{"EIO"}, true)},
	{id: "D11", fault: "full disk", needs: canMount, run: fullDisk},
	{id: "D12", fault: "no inodes", needs: canMount, run: noInodes},
	{id: "D13", fault: "fdatasync fails once with ENOSPC, EDQUOT", needs: canTrace, run: failingCall([]string{"fdatasync"}, []string{"ENOSPC", "EDQUOT"}, true)},
	{id: "D14", fault: "reading the disk fails once with EIO", needs: canTrace, run: readErrors},
	{id: "D15", quick: true, fault: "the file system turns read-only", needs: canLoop, run: readOnlyFlip},
	{id: "D16", fault: "the disk hangs", needs: canLoop, run: hangingDisk},
	{id: "D17", fault: "every sync is slow", needs: canTrace, run: slowDisk},
	{id: "D18", fault: "rename, unlink, directory sync, allocation fail once", needs: canTrace, run: failingCall([]string{"renameat", "unlinkat", "fsync", "fallocate"}, []string{"EIO"}, false)},
	{id: "B26", fault: "bits flipped in files of a stopped server", run: damageFiles(false, "a bit flipped")},
	{id: "B27", fault: "files cut, emptied, missing, zeroed", run: damageFiles(false, "a page of zeros", "cut short", "emptied", "missing")},
	{id: "B27k", fault: "files cut, flipped, zeroed after kill -9", run: damageFiles(true, "a bit flipped", "a page of zeros", "cut short")},
	{id: "B27f", fault: "foreign and doubled files", run: foreignFiles},
	{id: "B28", fault: "pages of a file exchanged", run: damageFiles(false, "two pages exchanged")},
	{id: "B29", quick: true, fault: "two servers on one directory", run: twoServers},
	{id: "R31", fault: "memory cap, backlog a multiple of it", needs: canCap, run: memoryCap},
	{id: "R32", quick: true, fault: "no file descriptors", run: noDescriptors},
	{id: "N40", fault: "connections reset in the middle of calls", run: resets},
	{id: "N41", quick: true, fault: "half-open connections", run: halfOpen},
	{id: "N42", fault: "readers that do not read", run: slowReaders},
	{id: "N43", fault: "one-byte segments", run: oneByteSegments},
	{id: "A50", quick: true, fault: "malformed requests", run: badRequests},
	{id: "A51", fault: "connect storm, idle and half-sent requests", run: connectStorm},
	{id: "A53", quick: true, fault: "poison messages", run: poisonMessages},
	{id: "S1", quick: true, fault: "kill -9 while a SQLite sink writes", run: sinkRows},
	{id: "Q1", fault: "kill -9 under clients of AMQP and HTTP", quick: true, run: amqpKills},
}, powerScenarios...)
