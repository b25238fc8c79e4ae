// Package server makes a Surgetank server of its parts: the broker on disk, users, the HTTP and
// AMQP doors, and the sinks. The order of the start makes nothing reachable before it is safe. The
// stop has the reverse order.
//
// # Start
//
// Listeners are bound first, so an address in use fails before a long recovery. Until everything
// runs, HTTP answers health checks only, and AMQP connections wait. Then the data directory is
// opened and replayed, users are loaded, the exposure is checked, the file's queues and sinks are
// declared, and the doors open.
//
// # Stop
//
// First the server becomes unready. Doors accept no more requests and finish current ones. Sinks
// commit and ack their current batches. The broker writes the accepted commands and closes the log.
// The doors get only a part of the time, so that slow clients leave some time for the sinks.
// Unfinished work is interrupted and named in the error.
//
// # Failure
//
// If the log fails (a full or broken disk, a lost mount), confirmed messages are safe, and the broker
// opens the log again by itself. Connections and subscriptions stay; the server is not ready
// meanwhile. If the stored data is damaged, the failure is final, and Done reports it.
package server
