package session

import (
	"testing"
	"time"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// TestADeliveryIsNeverLateEarly: times are stored in whole seconds, but a consumer always gets its
// whole time.
func TestADeliveryIsNeverLateEarly(t *testing.T) {
	bn := start(t, Limits{})
	for _, limit := range []time.Duration{time.Millisecond, time.Second, 2 * time.Second, 2500 * time.Millisecond} {
		args := wire.Table(nil).AddInt("x-consumer-timeout", limit.Milliseconds())
		q, err := bn.shared.vhosts.Vhost("/").DeclareQueue(limit.String(), translate.QueueAttrs{Args: args}, nil, func(translate.QueueAttrs) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for at := time.Duration(0); at < 2*time.Second; at += 100 * time.Millisecond {
			l := unackedList{}
			l.push(unacked{tag: 1, q: q, at: seconds(at)})
			for _, passed := range []time.Duration{limit - time.Millisecond, limit + 2*time.Second} {
				if _, late := l.late(at+passed, time.Hour); late != (passed > limit) {
					t.Errorf("limit %v, handed out at %v: %v later it is late: %v", limit, at, passed, late)
				}
			}
		}
	}
}
