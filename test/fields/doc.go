// Package fields holds every field of a message to every way that a message takes: the log, a
// snapshot, a dead letter, a redrive, HTTP, the client, the command line and AMQP. A field that is
// forgotten on one of them fails here.
package fields
