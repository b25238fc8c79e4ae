// Package surgetank is the vocabulary of Surgetank, a durable message queue for write-heavy
// systems: the types of messages and queues, the Broker interface that every way of running it
// implements, and the error codes.
//
// It imports the standard library only. Open a broker in your own process with package embedded,
// reach a server with package client, and run handlers over either with package worker.
package surgetank
