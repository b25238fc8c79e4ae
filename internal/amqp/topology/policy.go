package topology

import (
	"context"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/policy"
)

// A policy's settings for this door override or limit the arguments of a queue or exchange. The
// policy.Broker applies the settings for the broker's queue. A redeclaration is compared with the
// arguments only.

// under returns the settings of a queue after its policy: the lower of two limits, and otherwise
// the queue's own setting.
func (vh *Vhost) under(name string, a translate.QueueAttrs) translate.QueueAttrs {
	d := vh.env.Policies.Door(vh.Name, policy.Queues, name)
	a.Expires = lowerLimit(a.Expires, d.Expires)
	a.AckTimeout = lowerLimit(a.AckTimeout, d.AckTimeout)
	if d.HasDeadLetter && !a.HasDLX {
		a.HasDLX, a.DLX = true, d.DeadLetter
	}
	if d.HasDeadLetterKey && !a.HasDLK {
		a.HasDLK, a.DLK = true, d.DeadLetterKey
	}
	a.Backoff = a.Backoff || d.Backoff
	a.Breaker = a.Breaker || d.Breaker
	if d.Overflow != "" && a.Overflow == "" {
		a.Overflow = d.Overflow
	}
	return a
}

// lowerLimit returns the lower of two limits; 0 means none.
func lowerLimit(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// alternateOf returns an exchange's own alternate exchange, or else its policy's.
func (vh *Vhost) alternateOf(x *Exchange) string {
	if alt, ok := alternateArg(x.args); ok {
		return alt
	}
	if x.Name == "" {
		return ""
	}
	return vh.env.Policies.Door(vh.Name, policy.Exchanges, x.Name).Alternate
}

// PoliciesChanged applies the present policies to every queue and exchange.
func (s *Registry) PoliciesChanged() {
	// A policy can set a dead-letter exchange for queues of other doors that this door does not
	// know.
	for _, p := range s.Policies.Policies("") {
		if _, has := p.Settings["dead-letter-exchange"]; !has {
			continue
		}
		if vh := s.Vhost(p.Vhost); vh != nil {
			if err := vh.startDeadLetters(); err != nil {
				s.Log.Error("dead letters of a virtual host are not passed on until the server is restarted", "vhost", vh.Name, "err", err)
			}
		}
	}
	for _, vh := range s.All() {
		vh.mu.Lock()
		for _, q := range vh.queues {
			q.setDeclared(q.own())
		}
		for _, x := range vh.exchanges {
			x.alternate = vh.alternateOf(x)
		}
		vh.changed()
		vh.mu.Unlock()
	}
}

// typesKnown tells the policies which queues are quorum queues.
func (s *Registry) typesKnown(ctx context.Context) error {
	for _, vh := range s.All() {
		vh.mu.RLock()
		for _, q := range vh.queues {
			s.Policies.SetQuorum(q.Full, q.own().Quorum)
		}
		vh.mu.RUnlock()
	}
	return s.Policies.TypesKnown(ctx)
}
