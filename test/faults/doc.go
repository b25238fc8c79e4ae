// Command faults is a campaign against a real `surgetank serve`. Clients publish, receive, settle
// and deduplicate over HTTP and AMQP and record every call. Meanwhile the server is killed,
// stopped, starved or disconnected, or its disk fails. At the end the journal alone decides whether
// anything confirmed was lost, doubled or delivered out of order (package history).
//
//	go run ./test/faults                # every fault, a few injections each
//	go run ./test/faults -long          # many injections each
//	go run ./test/faults -only 'P1|D8'  # some of them
//	go run ./test/faults -seed 42       # the same schedule of faults again
//	go run ./test/faults -out bench     # the table into a dated file, too
//
// The campaign uses only the server's documented interfaces: the command line, the ready line of
// serve --json, the HTTP API, AMQP 0-9-1 and the exit code. Of the server's packages it imports
// only the one that starts the process. The parts that it shares with other campaigns are in
// test/kit. It needs Linux. Some faults need root or strace. If these are missing, the faults are
// skipped with a message, or fail if CI=true.
//
// Each fault is a scenario: a name, its number in the project's list of faults, and a function that
// injects it into a run. Every run has its own directory, server, clients and journal. It ends with
// a drain, because loss can only be judged after a drain.
package main
