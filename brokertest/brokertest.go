// Package brokertest tests the behaviour of a surgetank.Broker. An embedded broker, a client of a
// server and a cluster all pass Run. Programs with their own Broker, for example one that wraps
// another, can use it too.
package brokertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
)

// Clocked is a broker whose clock the test moves with Advance. With any other broker the tests wait
// in real time.
type Clocked interface {
	surgetank.Broker
	Advance(d time.Duration)
}

// patience is how long a test waits for a required event. Only a failing test waits this long.
const patience = 20 * time.Second

// Run tests the brokers that open returns. Each broker must be new and empty. If the test has not
// closed its broker, open must arrange that the broker is closed at the end of the test.
func Run(t *testing.T, open func(t *testing.T) surgetank.Broker) {
	for _, c := range []struct {
		name string
		test func(e *env)
	}{
		{"PublishAndReceive", publishAndReceive},
		{"PublishRefused", publishRefused},
		{"PublishNumbered", publishNumbered},
		{"PublishAsyncInOrder", publishAsyncInOrder},
		{"PublishToSeveralQueues", publishToSeveralQueues},
		{"Order", order},
		{"Dedup", dedup},
		{"Coalesce", coalesce},
		{"Delay", delay},
		{"TTL", ttl},
		{"Priority", priority},
		{"LimitReject", limitReject},
		{"LimitConsumers", limitConsumers},
		{"LimitDropOldest", limitDropOldest},
		{"LeaseExpires", leaseExpires},
		{"LeaseExtended", leaseExtended},
		{"NackAtOnce", nackAtOnce},
		{"NackLater", nackLater},
		{"NackBackoff", nackBackoff},
		{"NackUncounted", nackUncounted},
		{"DeadLetterAtLimit", deadLetterAtLimit},
		{"Reject", reject},
		{"DeadLetterDrop", deadLetterDrop},
		{"SettleResults", settleResults},
		{"SettleAsync", settleAsync},
		{"GroupInFlight", groupInFlight},
		{"FencingTokens", fencingTokens},
		{"LevelInFlight", levelInFlight},
		{"LongPoll", longPoll},
		{"ReceiveMaxBytes", receiveMaxBytes},
		{"ReceiveNoAck", receiveNoAck},
		{"Peek", peek},
		{"Explain", explain},
		{"BackingOff", backingOff},
		{"OldestAge", oldestAge},
		{"Purge", purge},
		{"Pause", pause},
		{"Redrive", redrive},
		{"Declare", declare},
		{"Delete", deleteQueue},
		{"QueueInfo", queueInfo},
		{"Transact", transact},
		{"SubscribeCredit", subscribeCredit},
		{"SubscribeManualCredit", subscribeManualCredit},
		{"SubscribeTryReceive", subscribeTryReceive},
		{"SubscribePriority", subscribePriority},
		{"SubscribeExclusive", subscribeExclusive},
		{"SubscribeSingle", subscribeSingle},
		{"SubscribeNoAck", subscribeNoAck},
		{"SubscribeCancel", subscribeCancel},
		{"SubscribeClose", subscribeClose},
		{"SubscribeQueueDeleted", subscribeQueueDeleted},
		{"SubscribeContext", subscribeContext},
		{"Conservation", conservation},
		{"Careless", careless},
		{"CallbacksThatFail", callbacksThatFail},
		{"Close", closing},
		{"DoorGroupRun", doorGroupRun},
		{"DoorMeta", doorMeta},
		{"DoorMetaIf", doorMetaIf},
		{"DoorMetaWatch", doorMetaWatch},
		{"DoorPool", doorPool},
		{"DoorFloor", doorFloor},
		{"DoorNotify", doorNotify},
		{"DoorCareless", doorCareless},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t)
			c.test(&env{T: t, b: b, ctx: t.Context()})
		})
	}
}

// env is the broker of one test, with helpers.
type env struct {
	*testing.T
	b   surgetank.Broker
	ctx context.Context
}

// manual reports whether the test moves the clock.
func (e *env) manual() (Clocked, bool) {
	c, ok := e.b.(Clocked)
	return c, ok
}

// pass advances a manual clock by d. With a real clock it does nothing, and the caller waits for
// the effect.
func (e *env) pass(d time.Duration) {
	if c, ok := e.manual(); ok {
		c.Advance(d)
	}
}

// span returns a duration for leases and delays: long with a manual clock, short with a real one.
func (e *env) span() time.Duration {
	if _, ok := e.manual(); ok {
		return time.Minute
	}
	return 300 * time.Millisecond
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("unexpected error: %v", err)
	}
}

// code requires an *Error with this code and a message.
func (e *env) code(err error, want surgetank.Code) {
	e.Helper()
	var se *surgetank.Error
	if !errors.As(err, &se) || se.Code != want || se.Message == "" {
		e.Fatalf("got error %#v (%v), want code %q", err, err, want)
	}
}

func (e *env) declare(name string, c surgetank.QueueConfig) surgetank.QueueInfo {
	e.Helper()
	info, created, err := e.b.DeclareQueue(e.ctx, name, c, surgetank.DeclareNew)
	e.must(err)
	if !created {
		e.Fatalf("queue %q existed before", name)
	}
	return info
}

// message returns a publishing.
func message(queue, body string) surgetank.Publishing {
	return surgetank.Publishing{Queues: []string{queue}, Message: surgetank.Message{Body: []byte(body)}}
}

// publish stores messages and returns their ids. All must be confirmed.
func (e *env) publish(msgs ...surgetank.Publishing) []surgetank.MessageID {
	e.Helper()
	results, err := e.b.Publish(e.ctx, msgs)
	e.must(err)
	if len(results) != len(msgs) {
		e.Fatalf("%d results for %d messages", len(results), len(msgs))
	}
	ids := make([]surgetank.MessageID, len(msgs))
	for i, r := range results {
		e.must(r.Err)
		ids[i] = r.ID
	}
	return ids
}

// bodies publishes one message per body.
func (e *env) bodies(queue string, bodies ...string) []surgetank.MessageID {
	e.Helper()
	var msgs []surgetank.Publishing
	for _, b := range bodies {
		msgs = append(msgs, message(queue, b))
	}
	return e.publish(msgs...)
}

// receive receives up to n messages, without waiting.
func (e *env) receive(queue string, n int, lease time.Duration) []surgetank.Delivery {
	e.Helper()
	got, err := e.b.Receive(e.ctx, queue, surgetank.ReceiveOptions{Max: n, Lease: lease})
	e.must(err)
	return got
}

// await waits for exactly n messages.
func (e *env) await(queue string, n int, lease time.Duration) []surgetank.Delivery {
	e.Helper()
	var got []surgetank.Delivery
	opts := surgetank.ReceiveOptions{Lease: lease}
	if _, ok := e.manual(); !ok {
		opts.Wait = patience / 2
	}
	for start := time.Now(); len(got) < n; {
		if time.Since(start) > patience {
			e.Fatalf("%d of %d messages came from %q", len(got), n, queue)
		}
		opts.Max = n - len(got)
		more, err := e.b.Receive(e.ctx, queue, opts)
		e.must(err)
		got = append(got, more...)
	}
	return got
}

// none requires that no message can be received now.
func (e *env) none(queue string) {
	e.Helper()
	if got := e.receive(queue, 10, 0); len(got) > 0 {
		e.Fatalf("received %v from %q, want nothing", texts(got), queue)
	}
}

func (e *env) settle(op surgetank.SettleOp, list ...surgetank.Delivery) {
	e.Helper()
	for i, err := range e.settleAll(op, list...) {
		if err != nil {
			e.Fatalf("settling %s: %v", list[i].ID, err)
		}
	}
}

func (e *env) settleAll(op surgetank.SettleOp, list ...surgetank.Delivery) []error {
	e.Helper()
	var s []surgetank.Settlement
	for _, d := range list {
		s = append(s, surgetank.Settlement{Receipt: d.Receipt, Op: op})
	}
	results, err := e.b.Settle(e.ctx, s)
	e.must(err)
	if len(results) != len(list) {
		e.Fatalf("%d results for %d settlements", len(results), len(list))
	}
	return results
}

func (e *env) nack(d surgetank.Delivery, s surgetank.Settlement) {
	e.Helper()
	s.Receipt, s.Op = d.Receipt, surgetank.Nack
	results, err := e.b.Settle(e.ctx, []surgetank.Settlement{s})
	e.must(err)
	e.must(results[0])
}

func (e *env) info(queue string) surgetank.QueueInfo {
	e.Helper()
	i, err := e.b.Queue(e.ctx, queue)
	e.must(err)
	return i
}

// counts requires these numbers of messages in each state.
func (e *env) counts(queue string, ready, blocked, delayed, leased int64) {
	e.Helper()
	i := e.info(queue)
	if got, want := [4]int64{i.Ready, i.Blocked, i.Delayed, i.Leased}, [4]int64{ready, blocked, delayed, leased}; got != want {
		e.Fatalf("queue %q has ready, blocked, delayed, leased = %v, want %v", queue, got, want)
	}
}

// until repeats a check until it succeeds.
func (e *env) until(what string, ok func() bool) {
	e.Helper()
	for start := time.Now(); !ok(); {
		if time.Since(start) > patience {
			e.Fatalf("this did not happen in time: %s", what)
		}
	}
}

func (e *env) subscribe(queue string, o surgetank.SubscribeOptions) surgetank.Subscription {
	e.Helper()
	s, err := e.b.Subscribe(e.ctx, queue, o)
	e.must(err)
	return s
}

// collect receives exactly n messages from a subscription.
func (e *env) collect(s surgetank.Subscription, n int) []surgetank.Delivery {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	var got []surgetank.Delivery
	for len(got) < n {
		var err error
		if got, err = s.Receive(ctx, got, n-len(got), 1<<20); err != nil {
			e.Fatalf("after %d of %d messages: %v", len(got), n, err)
		}
	}
	return got
}

// quiet requires that a subscription has no message. Before the check, a round trip through the
// broker lets messages arrive.
func (e *env) quiet(s surgetank.Subscription, queue string) {
	e.Helper()
	e.info(queue)
	got, err := s.TryReceive(nil, 10, 1<<20)
	e.must(err)
	if len(got) > 0 {
		e.Fatalf("received %v, want nothing", texts(got))
	}
}

func texts(list []surgetank.Delivery) []string {
	var out []string
	for _, d := range list {
		out = append(out, string(d.Body))
	}
	return out
}

func (e *env) same(got, want any) {
	e.Helper()
	if g, w := fmt.Sprintf("%q", got), fmt.Sprintf("%q", want); g != w {
		e.Fatalf("got %s, want %s", g, w)
	}
}
