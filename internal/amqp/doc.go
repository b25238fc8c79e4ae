// Package amqp is the AMQP 0-9-1 door: it lets RabbitMQ's clients use a surgetank.Broker unchanged.
//
// What belongs to AMQP alone lives here: connections and channels, exchanges and bindings, delivery tags,
// transactions on a channel, direct reply-to, x-death. What belongs to queues is the broker's: storage, leases,
// order, TTL, limits, dead-lettering. translate.go is the one place where the words of both meet.
//
//	client ── reader goroutine ── batch of publishes and settlements a read ──▶ Broker (async)
//	   ▲                    │ replies                                             │ confirms
//	   └── writer goroutine ◀── out buffer ◀── subscriptions (TryReceive) ◀───────┘
//
// Ownership: a connection's reader goroutine owns the protocol state; conn.mu guards what the writer and the
// broker's callbacks share with it. No blocking call is made under conn.mu. A virtual host's topology is guarded by
// vhost.mu; changes of it that are made durable first hold the stripe locks of the names they touch.
//
// The behaviour to match is RabbitMQ's, reply texts included; docs/amqp.md lists where this door differs.
package amqp
