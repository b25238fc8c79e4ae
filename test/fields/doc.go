// Package fields tests that every field of a message survives every path: the log, a snapshot, a
// dead letter, a redrive, HTTP, the client, the command line and AMQP. If one of these paths loses
// a field, a test in this package fails.
package fields
