// Package amqp is the AMQP 0-9-1 door: it lets RabbitMQ's clients use a surgetank.Broker unchanged.
//
// What belongs to AMQP alone lives below it, one room a subject. Imports point down only.
//
//	amqp         the server: listeners, strangers, limits, shutdown, the janitor
//	management   RabbitMQ's management API over HTTP
//	session      connections, channels, consumers, confirms, transactions, the end of a connection
//	topology     virtual hosts, exchanges, bindings, routes, policies, dead letters
//	translate    AMQP's words and the broker's: messages, headers, arguments; pure
//	wire         frames, methods and tables
//
// What belongs to queues is the broker's: storage, leases, order, TTL, limits, dead-lettering.
// session and topology say which goroutines and locks they have. The server has one lock, for the
// lists of listeners and connections, and two goroutines beside those of the listeners: the
// janitor, which looks for what is overdue, and one that ends connections whose user or virtual
// host is gone.
//
// The behaviour to match is RabbitMQ's, reply texts included; docs/amqp.md lists where this door
// differs.
package amqp
