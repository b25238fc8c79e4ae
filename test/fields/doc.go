// Package fields tests that every field of a message survives every path: the log, a snapshot, a
// dead letter, a redrive, HTTP, the client, the command line and AMQP. A field that one of them
// forgets fails a test here.
package fields
