package amqp

import (
	"testing"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
)

// TestRecoverReportsTheTarget: basic.recover is one report that the target is down, if the queue
// sets level.breaker. The breaker opens, no attempt counts, and nothing is delivered until a probe.
// Without the setting, and with a nack, the messages come back at once.
func TestRecoverReportsTheTarget(t *testing.T) {
	for _, c := range []struct {
		breaker surgetank.BreakerMode
		nack    bool
		opens   bool
	}{
		{breaker: surgetank.BreakerReports, opens: true},
		{breaker: surgetank.BreakerErrors, opens: true},
		{breaker: ""},
		{breaker: surgetank.BreakerOff},
		{breaker: surgetank.BreakerReports, nack: true},
	} {
		bn := start(t, Limits{})
		cl := bn.dial()
		config := surgetank.QueueConfig{Level: surgetank.LevelConfig{Breaker: c.breaker}, Retry: surgetank.RetryConfig{MaxAttempts: 2}}
		if _, _, err := bn.broker.DeclareQueue(t.Context(), "q", config, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		cl.bodies("", "q", "0", "1", "2")
		ds := cl.consume("q", nil)
		take(t, ds, 3)
		if c.nack {
			cl.ok(cl.Nack(0, true, true))
		} else {
			cl.ok(cl.Recover(true))
		}
		level := func() surgetank.LevelInfo {
			if i := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(t.Context(), "q")); i.Level != nil {
				return *i.Level
			}
			return surgetank.LevelInfo{}
		}
		if !c.opens {
			for range 3 {
				if d := next(t, ds); !d.Redelivered {
					t.Errorf("%+v: %+v", c, d)
				}
			}
			if l := level(); l.Openings != 0 {
				t.Errorf("%+v: the breaker opened: %+v", c, l)
			}
			continue
		}
		if l := level(); l.Openings != 1 || l.BreakerCause != "down_reported" {
			t.Errorf("%+v: %+v", c, l)
		}
		if d := next(t, ds); string(d.Body) != "0" || !d.Redelivered { // the probe
			t.Errorf("%+v: the probe is %+v", c, d)
		} else {
			cl.ok(d.Ack(false))
		}
		for i := range 2 { // the ramp: one by one
			d := next(t, ds)
			if want := string(rune('1' + i)); string(d.Body) != want {
				t.Errorf("%+v: %q, want %q", c, d.Body, want)
			}
			cl.ok(d.Ack(false))
		}
		if i := amqptest.Must[surgetank.QueueInfo](t)(bn.broker.Queue(t.Context(), "q")); i.DeadLettered != 0 {
			t.Errorf("%+v: %d messages were parked", c, i.DeadLettered)
		}
	}
}
