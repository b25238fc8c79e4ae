// Package session serves connections of AMQP 0-9-1. It has the handshake, channels, publishes and
// confirms, consumers and acknowledgements, transactions, direct replies, and the end of a
// connection.
//
//	client ── reader ── batch of publishes and settlements a read ──▶ Broker (async)
//	   ▲         │ replies                                              │ confirms
//	   └── writer ◀── outbox ◀── subscriptions (TryReceive) ◀───────────┘
//
// A connection has two goroutines of its own. Other goroutines call its methods:
//
//	goroutine       owns
//	reader (Serve)  input, intake, the channels' protocol state
//	writer          its buffers, the socket's writing side
//	broker's loop   nothing: it calls consumer.notify and publishBatch.done
//	janitor         idleWatch; looks for overdue acknowledgements
//
// Each lock belongs to one type, and each type has at most one lock:
//
//	lock                guards                                       used by
//	channel.delivering  the order of tags: from fetching messages    reader, writer
//	                    to entering them where they are written
//	ledger.mu           tags, unacknowledged deliveries, consumers   reader, writer, janitor
//	outbox.mu           the outbox, which the writer empties         all, also the broker's loop
//	interrupts.mu       actions for the reader                       all but the loop
//	channels.mu         the list of channels                         reader, janitor, management
//	budget.mu, replyTable.mu, alarms.mu: shared by the whole server, never held with another lock
//
// Goroutines lock them in this order. Of these locks, the broker's loop uses outbox.mu only. So no
// goroutine copies a body, writes to a socket, or calls the broker under outbox.mu. A message is
// encoded first and then added by reference. Under outbox.mu the loop also starts background work
// and counts refusals. For this it uses short locks of the server and the virtual host.
//
// No goroutine holds a lock while it waits for the broker. TryReceive may read from disk. It is
// called under delivering only.
package session
