// Package amqp is the AMQP 0-9-1 door. RabbitMQ's clients use a surgetank.Broker through it without
// a change.
//
// The packages below it have the parts that only AMQP needs. Imports between them point down only.
//
//	amqp         the server: listeners, peers before login, limits, shutdown, the janitor
//	management   RabbitMQ's management API over HTTP
//	session      connections, channels, consumers, confirms, transactions, the end of a connection
//	topology     virtual hosts, exchanges, bindings, routes, policies, dead letters
//	translate    AMQP's words and the broker's: messages, headers, arguments; pure functions
//	wire         frames, methods and tables
//
// The broker does the rest: storage, leases, order, TTL, limits and dead-lettering. The package
// comments of session and topology list their goroutines and locks. The server has one lock, for
// the lists of listeners and connections. Besides its listeners it has two goroutines. The janitor
// finds overdue work. watchAuth ends connections whose user or virtual host was deleted.
//
// The door behaves as RabbitMQ does, including the reply texts. docs/amqp.md lists the differences.
package amqp
