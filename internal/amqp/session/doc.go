// Package session serves connections of AMQP 0-9-1: handshake, channels, publishes and confirms,
// consumers and acknowledgements, transactions, direct replies, and the end of a connection.
//
//	client ── reader ── batch of publishes and settlements a read ──▶ Broker (async)
//	   ▲         │ replies                                              │ confirms
//	   └── writer ◀── outbox ◀── subscriptions (TryReceive) ◀───────────┘
//
// A connection has two goroutines of its own, and others call it:
//
//	goroutine       owns
//	reader (Serve)  input, intake, the channels' protocol state
//	writer          its buffers, the socket's writing side
//	broker's loop   nothing: it calls consumer.notify and publishBatch.done
//	janitor         idleWatch; looks for acknowledgements that are late
//
// Each lock belongs to one type, and each type has at most one lock:
//
//	lock                guards                                       who waits for it
//	channel.delivering  the order of tags: from fetching messages    reader, writer
//	                    to entering them where they are written
//	ledger.mu           tags, unacknowledged deliveries, consumers   reader, writer, janitor
//	outbox.mu           what waits for the writer                    everybody, the broker's loop among them
//	interrupts.mu       what waits for the reader                    everybody but the loop
//	channels.mu         the list of channels                         reader, janitor, management
//	budget.mu, replyTable.mu, alarms.mu: accounts of the whole server, never held with another lock
//
// They are taken in this order. The broker's loop takes outbox.mu and no other of them. So nobody
// copies a body, writes to a socket, or calls the broker under outbox.mu: a message is encoded
// first and handed over by reference. The loop also starts work in the background and notes
// refusals under it, for which it takes short locks of the server and of the virtual host.
//
// No call that waits for the broker is made under a lock. TryReceive, which may read from disk, is
// called under delivering alone.
package session
