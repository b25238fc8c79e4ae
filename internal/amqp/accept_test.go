package amqp

import (
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/surgetank/surgetank"
)

// TestAcceptRateSlowsOneQueue: a connection publishes to two queues. The nack for a publish above
// one queue's accept.rate is delayed. A later publish to the other queue is confirmed before that
// nack.
func TestAcceptRateSlowsOneQueue(t *testing.T) {
	bn := start(t, Limits{})
	c := bn.dial()
	c.queue("free", nil)
	config := surgetank.QueueConfig{Accept: surgetank.AcceptConfig{Rate: 0.001, Burst: 1}}
	if _, _, err := bn.broker.DeclareQueue(t.Context(), "slow", config, surgetank.DeclareNew); err != nil {
		t.Fatal(err)
	}
	c.ok(c.Confirm(false))
	var d []*amqp091.DeferredConfirmation
	for _, q := range []string{"slow", "slow", "free"} {
		one, err := c.PublishWithDeferredConfirm("", q, false, false, amqp091.Publishing{Body: []byte("m")})
		c.ok(err)
		d = append(d, one)
	}
	for _, i := range []int{0, 2} {
		<-d[i].Done()
		if !d[i].Acked() {
			t.Errorf("publish %d was refused", i)
		}
	}
	select {
	case <-d[1].Done():
		t.Errorf("the publish above accept.rate was answered at once: %v", d[1].Acked())
	default:
	}
	info, err := bn.broker.Queue(t.Context(), "slow")
	c.ok(err)
	if len(info.Refusals) != 1 || info.Refusals[0].Limit != surgetank.LimitAcceptRate || info.Ready != 1 {
		t.Errorf("%d messages, refusals %v", info.Ready, info.Refusals)
	}
}
