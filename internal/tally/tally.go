// Package tally counts, for metrics, how often each limit refused a request or a connection. Doors
// count each refusal where they refuse.
package tally

import (
	"errors"
	"sync/atomic"

	"github.com/surgetank/surgetank"
)

// Limit is one kind of limit. Its name is a label of a metric and never changes.
type Limit int

// The limits.
const (
	Connections   Limit = iota // connections of the server
	BeforeLogin                // connections without a login; a newer connection replaced one of them
	Channels                   // channels of a connection
	Consumers                  // consumers of a queue, a channel or a connection
	Subscriptions              // subscriptions over HTTP
	Queues                     // queues of the broker
	Routing                    // a door's memory for finding a message's queues
	MessageSize                // bytes of a message, a batch or a request
	Memory                     // bytes of requests and answers in the server's memory
	Logins                     // login attempts after too many failed ones

	VhostConnections
	VhostQueues
	UserConnections
	UserChannels
	UserConsumers
	count
)

var names = [count]string{"connections", "strangers", "channels", "consumers", "subscriptions", "queues", "routing", "message_size", "memory", "logins",
	"vhost_connections", "vhost_queues", "user_connections", "user_channels", "user_consumers"}

// byError are the limits that surgetank.Error.Limit names.
var byError = map[string]Limit{surgetank.LimitVhostConnections: VhostConnections, surgetank.LimitVhostQueues: VhostQueues,
	surgetank.LimitUserConnections: UserConnections, surgetank.LimitUserChannels: UserChannels, surgetank.LimitUserConsumers: UserConsumers}

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

// Refused counts a refusal by the limit that the error names. If the error names none of the limits
// here, the limit is otherwise.
func (c *Counts) Refused(err error, otherwise Limit) {
	var e *surgetank.Error
	if errors.As(err, &e) {
		if l, known := byError[e.Limit]; known {
			otherwise = l
		}
	}
	c.Add(otherwise)
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
