package policy

import (
	"context"
	"slices"

	"github.com/surgetank/surgetank/internal/fullname"
)

// A policy may apply to quorum queues or classic queues alone. Only the door that declared a queue
// knows its type. The door calls SetQuorum before it declares the queue, and for all of its queues
// when it starts. A queue without such a call is a classic queue. Until the door has called
// TypesKnown, a newly opened Broker does not change the queues of virtual hosts with such policies.
// Their settings are durable and were right when the server stopped.

// SetQuorum records whether the queue of a full name, which may not exist yet, is a quorum queue.
func (b *Broker) SetQuorum(queue string, is bool) {
	if is {
		b.quorum.Store(queue, struct{}{})
	} else {
		b.quorum.Delete(queue)
	}
}

// MakeQuorum turns an existing queue into a quorum queue, and applies its policy.
func (b *Broker) MakeQuorum(ctx context.Context, queue string) error {
	b.SetQuorum(queue, true)
	b.gate.RLock()
	defer b.gate.RUnlock()
	vhost, name := fullname.Split(queue)
	return b.applyTo(ctx, queue, b.match(vhost, Queues, name))
}

// TypesKnown updates the queues of virtual hosts with policies for one type of queue.
func (b *Broker) TypesKnown(ctx context.Context) error {
	b.change.Lock()
	defer b.change.Unlock()
	b.typed.Store(true)
	return b.apply(ctx, func(vhost string) bool { return byType(b.in(vhost)) })
}

// byType reports whether one of the policies applies to one type of queue only.
func byType(list []*compiled) bool {
	return slices.ContainsFunc(list, func(c *compiled) bool { return c.ApplyTo == QuorumQueues || c.ApplyTo == ClassicQueues })
}

// targets returns the targets of policies that include a queue or exchange.
func (b *Broker) targets(what Target, vhost, name string) [2]Target {
	if what != Queues {
		return [2]Target{what, what}
	}
	if _, is := b.quorum.Load(fullname.Of(vhost, name)); is {
		return [2]Target{Queues, QuorumQueues}
	}
	return [2]Target{Queues, ClassicQueues}
}
