package policy

import (
	"context"
	"slices"

	"github.com/surgetank/surgetank"
)

// A policy may be for quorum queues or classic queues alone. Only the door that declared a queue
// knows its type, so that door tells the Broker with SetQuorum before it declares the queue, and
// for all of its queues when it starts. A queue that no door has named is a classic queue. Until
// the door has called TypesKnown, a Broker that has just been opened leaves the queues of virtual
// hosts with such policies as they are: their settings are durable and were right when the server
// stopped.

// SetQuorum tells that the queue of a full name, which may not exist yet, is a quorum queue, or
// that it is none.
func (b *Broker) SetQuorum(queue string, is bool) {
	if is {
		b.quorum.Store(queue, struct{}{})
	} else {
		b.quorum.Delete(queue)
	}
}

// MakeQuorum turns a queue that exists into a quorum queue, and gives it the settings of its
// policy.
func (b *Broker) MakeQuorum(ctx context.Context, queue string) error {
	b.SetQuorum(queue, true)
	b.gate.RLock()
	defer b.gate.RUnlock()
	vhost, name := surgetank.SplitName(queue)
	return b.applyTo(ctx, queue, b.match(vhost, Queues, name))
}

// TypesKnown brings the queues of virtual hosts with policies for one type of queue to what these
// say.
func (b *Broker) TypesKnown(ctx context.Context) error {
	b.change.Lock()
	defer b.change.Unlock()
	b.typed.Store(true)
	return b.apply(ctx, func(vhost string) bool { return byType(b.in(vhost)) })
}

// byType tells whether one of the policies is for one type of queue.
func byType(list []*compiled) bool {
	return slices.ContainsFunc(list, func(c *compiled) bool { return c.ApplyTo == QuorumQueues || c.ApplyTo == ClassicQueues })
}

// targets gives what a queue or exchange is, from the point of view of policies.
func (b *Broker) targets(what Target, vhost, name string) [2]Target {
	if what != Queues {
		return [2]Target{what, what}
	}
	if _, is := b.quorum.Load(surgetank.FullName(vhost, name)); is {
		return [2]Target{Queues, QuorumQueues}
	}
	return [2]Target{Queues, ClassicQueues}
}
