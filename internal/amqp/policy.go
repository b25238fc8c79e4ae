package amqp

import (
	"context"
	"time"

	"github.com/surgetank/surgetank/internal/policy"
)

// What policies ask of this door is put over the arguments that a queue or exchange was declared with; what they ask of the
// queue itself the policy.Broker does. Redeclarations are compared with the arguments alone.

// under gives the settings of a queue as its policy makes them: of two limits the lower, for all else its own.
func (vh *vhost) under(name string, a queueAttrs) queueAttrs {
	d := vh.srv.policies.Door(vh.name, policy.Queues, name)
	a.expires = lowerLimit(a.expires, d.Expires)
	a.ackTimeout = lowerLimit(a.ackTimeout, d.AckTimeout)
	if d.HasDeadLetter && !a.hasDLX {
		a.hasDLX, a.dlx = true, d.DeadLetter
	}
	if d.HasDeadLetterKey && !a.hasDLK {
		a.hasDLK, a.dlk = true, d.DeadLetterKey
	}
	a.backoff = a.backoff || d.Backoff
	if d.Overflow != "" && a.overflow == "" {
		a.overflow = d.Overflow
	}
	return a
}

// lowerLimit is the lower of two limits; 0 is none.
func lowerLimit(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// alternateOf gives an exchange's alternate: its own, or else its policy's.
func (vh *vhost) alternateOf(x *exchange) string {
	if alt, ok := alternateArg(x.args); ok {
		return alt
	}
	if x.name == "" {
		return ""
	}
	return vh.srv.policies.Door(vh.name, policy.Exchanges, x.name).Alternate
}

// policiesChanged gives every queue and exchange what its policy asks of it now.
func (s *Server) policiesChanged() {
	// Queues of other doors can come under a dead-letter exchange without this one hearing of them.
	for _, p := range s.policies.Policies("") {
		if _, has := p.Settings["dead-letter-exchange"]; !has {
			continue
		}
		if vh := s.vhost(p.Vhost); vh != nil {
			if err := vh.startDeadLetters(); err != nil {
				s.log.Error("dead letters of a virtual host are not passed on until the server starts next", "vhost", vh.name, "err", err)
			}
		}
	}
	for _, vh := range s.topologies() {
		vh.mu.Lock()
		for _, q := range vh.queues {
			q.give(q.own())
		}
		for _, x := range vh.exchanges {
			x.alternate = vh.alternateOf(x)
		}
		vh.changed()
		vh.mu.Unlock()
	}
}

// typesKnown tells the policies which queues are quorum queues.
func (s *Server) typesKnown(ctx context.Context) error {
	for _, vh := range s.topologies() {
		vh.mu.RLock()
		for _, q := range vh.queues {
			s.policies.SetQuorum(q.full, q.own().quorum)
		}
		vh.mu.RUnlock()
	}
	return s.policies.TypesKnown(ctx)
}
