// Package tally counts, for metrics, how often each limit refused a request or a connection. Doors
// count each refusal where they refuse.
package tally

import "sync/atomic"

// Limit is one kind of limit. Its name is a label of a metric and never changes.
type Limit int

// The limits.
const (
	Connections   Limit = iota // connections of the server, of a virtual host or of a user
	BeforeLogin                // connections without a login; a newer connection replaced one of them
	Channels                   // channels of a connection or of a user
	Consumers                  // consumers of a queue, a channel, a connection or a user
	Subscriptions              // subscriptions over HTTP
	Queues                     // queues of the broker or of a virtual host
	Routing                    // a door's memory for finding a message's queues
	MessageSize                // bytes of a message, a batch or a request
	Memory                     // bytes of requests and answers in the server's memory
	Logins                     // login attempts after too many failed ones
	count
)

var names = [count]string{"connections", "strangers", "channels", "consumers", "subscriptions", "queues", "routing", "message_size", "memory", "logins"}

func (l Limit) String() string { return names[l] }

// Counts contains the counts of one server. The zero value is ready. A nil *Counts counts nothing.
// Any goroutine may call its methods.
type Counts struct {
	n [count]atomic.Uint64
}

// Add counts one refusal.
func (c *Counts) Add(l Limit) {
	if c != nil {
		c.n[l].Add(1)
	}
}

// Each calls f with every limit and its count, in the order of the limits.
func (c *Counts) Each(f func(limit Limit, refused uint64)) {
	for l := range count {
		var n uint64
		if c != nil {
			n = c.n[l].Load()
		}
		f(l, n)
	}
}
