// Command faults is a campaign against a real `surgetank serve`: clients publish, receive, settle
// and deduplicate over HTTP and AMQP and write down every call; meanwhile the server is killed,
// stopped, starved, cut off, or its disk fails; and at the end the journal alone decides whether
// anything confirmed was lost, doubled or out of order (package history).
//
//	go run ./test/faults                # every fault, a few injections each
//	go run ./test/faults -long          # many injections each
//	go run ./test/faults -only 'P1|D8'  # some of them
//	go run ./test/faults -seed 42       # the same schedule of faults again
//	go run ./test/faults -out bench     # the table into a dated file, too
//
// It knows the server by its documented surface alone: the command line, the ready line of
// serve --json, the HTTP API, AMQP 0-9-1 and the exit code. It imports no package of the server. It
// needs Linux; some faults need root or strace, and are skipped, in words, where that is missing,
// which is an error when CI=true.
//
// Each fault is a scenario: a name, the number it has in the list of faults that the project keeps,
// and a function that injects it into a run. Every run has its own directory, server, clients and
// journal, and ends with a drain, for without one nothing can be said about loss.
package main
