// Package server makes a Surgetank server out of its parts: the broker on disk, users, the HTTP and
// AMQP doors and the sinks, started in an order in which nothing is reachable before it is safe,
// and stopped in the reverse.
//
// # Start
//
// Listeners are bound first, so that an address in use fails before a long recovery; until
// everything runs, HTTP answers health checks only and AMQP connections wait. Then the data
// directory is opened (which replays it), users are loaded, the exposure is checked, the file's
// queues and sinks are declared, and the doors open.
//
// # Stop
//
// Readiness goes first. Doors stop taking requests and finish those they have, sinks commit what
// they hold and ack it, and the broker writes what it accepted and closes the log. The doors have a
// part of the time, so that slow clients leave the sinks some of it. What does not finish is cut
// off and named.
//
// # Failure
//
// A log that failed (a full or broken disk, a bad checksum) ends the server: what was confirmed is
// safe, nothing can be confirmed any more, and a restart recovers from what is on disk. Done tells.
package server
