// Package surgetank defines the types of Surgetank, a durable message queue for systems that write
// a lot: messages, queues, the Broker interface and the error codes.
//
// Start with one of these packages:
//
//   - embedded opens a broker in your own process.
//   - client connects to a server.
//   - worker runs handlers over either.
//
// Send, SendAll, AckAll and Deliveries are short forms for the first steps. Besides one small
// internal package, this package imports only the standard library.
package surgetank
