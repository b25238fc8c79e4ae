package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/supervise"
)

// A publisher with dedup ids and a consumer work through a failure of each append in turn, with
// refused openings after it. Every message is acked once, no message is delivered after its
// confirmed ack, and nothing is left.
func TestFailureOfEveryAppend(t *testing.T) {
	const messages = 8
	for failAt := 2; ; failAt++ { // the first append belongs to the start
		var used bool
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, supervise.Options{})
			r.failAt = failAt
			defer r.s.Close()
			for {
				_, _, err := r.s.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{DedupWindow: time.Hour}, surgetank.DeclareIfAbsent)
				if err == nil {
					break
				}
				if code(t, "declare", err, surgetank.CodeUncertain); t.Failed() {
					return
				}
			}
			r.mu.Lock()
			r.refuse = []error{surgetank.Errorf(surgetank.CodeFull, "no room"), errDisk}
			r.mu.Unlock()
			sub, err := r.s.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 3})
			if err != nil {
				t.Fatal(err)
			}
			published := make(chan error, 1)
			go func() {
				for n := 1; n <= messages; {
					res, err := r.s.Publish(t.Context(), publishing("q", n))
					switch {
					case err == nil && res[0].Err == nil:
						n++
					case err == nil:
						published <- res[0].Err
						return
					case !surgetank.Passing(err):
						published <- err
						return
					}
				}
				published <- nil
			}()
			acked := map[string]int{}
			for len(acked) < messages {
				for _, d := range receive(t, sub, 1) {
					if acked[string(d.Body)] > 0 {
						t.Fatalf("failAt %d: message %s was delivered after its ack was confirmed", failAt, d.Body)
					}
					res, err := r.s.Settle(t.Context(), []surgetank.Settlement{{Receipt: d.Receipt}})
					switch {
					case err == nil && res[0] == nil:
						acked[string(d.Body)]++
					case err == nil:
						code(t, "ack", res[0], surgetank.CodeLeaseLost)
					default:
						code(t, "ack", err, surgetank.CodeUncertain)
						// The ack may be stored: then the message does not come again.
						if list, err := r.s.Peek(t.Context(), "q", surgetank.PeekOptions{ID: d.ID}); err != nil {
							t.Fatal(err)
						} else if len(list) == 0 {
							acked[string(d.Body)]++
						}
					}
				}
			}
			if err := <-published; err != nil {
				t.Fatal(failAt, err)
			}
			if info, err := r.s.Queue(t.Context(), "q"); err != nil || info.Ready+info.Leased+info.Delayed+info.Blocked != 0 {
				t.Fatalf("failAt %d: messages are left: %+v, %v", failAt, info, err)
			}
			r.mu.Lock()
			used = r.appends >= failAt
			if want := 2; used && r.openings != want {
				t.Errorf("failAt %d: %d openings, want %d", failAt, r.openings, want)
			}
			r.mu.Unlock()
		})
		if !used {
			if failAt < messages { // acks can share the entries of publishes
				t.Fatalf("only %d appends could fail", failAt)
			}
			return
		}
		if t.Failed() {
			return
		}
	}
}

// A subscription keeps its credit: messages that were received use it up, messages that only waited
// in the failed broker do not.
func TestManualCreditContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{})
		defer r.s.Close()
		r.declare("q", surgetank.QueueConfig{})
		sub, err := r.s.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 2, ManualCredit: true})
		if err != nil {
			t.Fatal(err)
		}
		sub.AddCredit(2)
		r.publish("q", 1, 6)
		if got := bodies(receive(t, sub, 1)); !slices.Equal(got, []string{"1"}) {
			t.Fatal(got)
		}
		release := r.block()
		r.failNow()
		synctest.Wait()
		if got, err := sub.TryReceive(nil, 10, 1<<20); len(got) != 0 || err != nil {
			t.Errorf("messages of the failed broker were delivered: %v, %v", bodies(got), err)
		}
		sub.AddCredit(1) // 5 granted, 1 used
		release()
		if got := bodies(receive(t, sub, 4)); !slices.Equal(got, []string{"1r", "2r", "3r", "4r"}) {
			t.Errorf("after the opening: %v", got)
		}
		synctest.Wait()
		if got, err := sub.TryReceive(nil, 10, 1<<20); len(got) != 0 || err != nil {
			t.Errorf("more messages than credit: %v, %v", bodies(got), err)
		}
	})
}

// Exclusive, cancelled, pooled and bound subscriptions keep their meaning.
func TestKindsOfSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{})
		defer r.s.Close()
		attach := func(queue string, o door.SubscribeOptions) door.Subscription {
			t.Helper()
			r.declare(queue, surgetank.QueueConfig{})
			sub, err := r.s.Attach(t.Context(), queue, o)
			if err != nil {
				t.Fatal(err)
			}
			return sub
		}
		alone := attach("alone", door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, Exclusive: true}})
		cancelled := attach("cancelled", door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1}})
		if err := cancelled.Cancel(); err != nil {
			t.Fatal(err)
		}
		h, err := r.s.History(t.Context(), "alone")
		if err != nil {
			t.Fatal(err)
		}
		opening := h.Openings[len(h.Openings)-1].Incarnation
		var notes atomic.Int64
		bound := attach("bound", door.SubscribeOptions{Opening: opening, Notify: func() { notes.Add(1) }})
		pool := door.NewPool()
		one := attach("one", door.SubscribeOptions{Pool: pool, SubscribeOptions: surgetank.SubscribeOptions{}})
		two := attach("two", door.SubscribeOptions{Pool: pool, SubscribeOptions: surgetank.SubscribeOptions{}})
		one.SetPoolLimit(1)
		one.AddCredit(5)
		two.AddCredit(5)

		r.failNow()
		for name, sub := range map[string]door.Subscription{"bound": bound, "cancelled": cancelled} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			_, err := sub.Receive(ctx, nil, 1, 1)
			cancel()
			if want := map[string]surgetank.Code{"bound": surgetank.CodeUnavailable, "cancelled": surgetank.CodeClosed}[name]; surgetank.CodeOf(err) != want {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
		synctest.Wait()
		if notes.Load() == 0 {
			t.Error("the end of a subscription called no Notify")
		}
		_, err = r.s.Attach(t.Context(), "bound", door.SubscribeOptions{Opening: opening})
		code(t, "a subscription of an earlier opening", err, surgetank.CodeUnavailable)
		_, err = r.s.Attach(t.Context(), "alone", door.SubscribeOptions{})
		code(t, "a second consumer of an exclusive one's queue", err, surgetank.CodeExists)
		r.publish("alone", 1, 1)
		receive(t, alone, 1)
		r.publish("one", 2, 4)
		r.publish("two", 5, 7)
		synctest.Wait()
		a, _ := one.TryReceive(nil, 10, 1<<20)
		b, _ := two.TryReceive(nil, 10, 1<<20)
		if len(a)+len(b) != 1 {
			t.Errorf("a pool with limit 1 has %d messages", len(a)+len(b))
		}
		if err := alone.Close(); err != nil {
			t.Error(err)
		}
	})
}

// While no opening serves, calls wait up to the bound, within the limits, and settlements are
// answered at once.
func TestCallsBetweenOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{Wait: 5 * time.Second, MaxWaiting: 2, MaxWaitingBytes: 2000})
		defer r.s.Close()
		r.declare("q", surgetank.QueueConfig{})
		r.publish("q", 1, 1)
		sub, err := r.s.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 1})
		if err != nil {
			t.Fatal(err)
		}
		old := receive(t, sub, 1)[0].Receipt
		release := r.block()
		r.failNow()
		synctest.Wait() // until the supervisor knows of the failure
		if st := r.s.Status(); st.State != supervise.Opening || !errors.Is(st.Reason, errDisk) {
			t.Errorf("%+v", st)
		}
		_, err = r.s.Publish(t.Context(), publishing("q", 2))
		code(t, "a publish that waits too long", err, surgetank.CodeUnavailable)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = r.s.Queue(ctx, "q")
		if code(t, "an ended context", err, surgetank.CodeUnavailable); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		res, err := r.s.Settle(t.Context(), []surgetank.Settlement{{Receipt: old}})
		if err != nil {
			t.Fatal(err)
		}
		code(t, "an old receipt", res[0], surgetank.CodeLeaseLost)
		settled := make(chan error, 1)
		if err := r.s.SettleAsync(t.Context(), []surgetank.Settlement{{Receipt: old}}, func(res []surgetank.SettleResult, err error) { settled <- errors.Join(err, res[0]) }); err != nil {
			t.Fatal(err)
		}
		code(t, "an old receipt", <-settled, surgetank.CodeLeaseLost)

		answers := make(chan error, 2)
		for n := 3; n <= 4; n++ {
			go func() {
				_, err := r.s.Publish(t.Context(), publishing("q", n))
				answers <- err
			}()
		}
		synctest.Wait()
		_, err = r.s.Queue(t.Context(), "q")
		code(t, "one call too many", err, surgetank.CodeBusy)
		release()
		for range 2 {
			if err := <-answers; err != nil {
				t.Error("a publish that waited:", err)
			}
		}
		res, err = r.s.Settle(t.Context(), []surgetank.Settlement{{Receipt: old}})
		if err != nil {
			t.Fatal(err)
		}
		code(t, "an old receipt in the next opening", res[0], surgetank.CodeLeaseLost)
		if got := bodies(receive(t, sub, 1)); !slices.Equal(got, []string{"1r"}) {
			t.Error(got)
		}
		if st := r.s.Status(); st.State != supervise.Serving || st.Openings != 2 || !errors.Is(st.LastError, errDisk) || st.Reason != nil {
			t.Errorf("%+v", st)
		}
	})
}

// Calls that wait or read at the failure continue in the next opening.
func TestReadsContinue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{})
		defer r.s.Close()
		r.declare("q", surgetank.QueueConfig{})
		got := make(chan []surgetank.Delivery, 1)
		go func() {
			list, err := r.s.Receive(t.Context(), "q", surgetank.ReceiveOptions{Wait: time.Minute})
			if err != nil {
				t.Error(err)
			}
			got <- list
		}()
		synctest.Wait()
		r.failNow()
		r.publish("q", 1, 1)
		if list := <-got; len(list) != 1 {
			t.Errorf("a waiting receive got %d messages", len(list))
		}
		r.failNow()
		if list, err := r.s.Peek(t.Context(), "q", surgetank.PeekOptions{}); err != nil || len(list) != 1 {
			t.Error(len(list), err)
		}
	})
}

// A watch begins again in each opening. A write without an answer is in the feed exactly if it is
// stored. A watch that was stopped stays stopped.
func TestWatchesContinue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{})
		defer r.s.Close()
		r.set("kept", "1")
		feed, other := door.NewMetaFeed(func() {}), door.NewMetaFeed(func() {})
		stop, err := r.s.WatchMeta(t.Context(), "test", feed)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		stopOther, err := r.s.WatchMeta(t.Context(), "test", other)
		if err != nil {
			t.Fatal(err)
		}
		other.Take()
		stopOther()
		seen := func() map[string]string {
			values := map[string]string{}
			u, _ := feed.Take()
			for name, v := range u.Values {
				values[name] = string(v.Value)
			}
			if !u.Whole {
				values["part"] = "yes"
			}
			return values
		}
		if got := seen(); !maps.Equal(got, map[string]string{"kept": "1"}) {
			t.Errorf("at first: %v", got)
		}
		r.failNow() // its write has no answer and is not stored
		r.set("later", "2")
		if got := seen(); !maps.Equal(got, map[string]string{"kept": "1", "later": "2"}) {
			t.Errorf("after the second opening: %v", got)
		}
		r.set("kept", "3")
		if got := seen(); !maps.Equal(got, map[string]string{"kept": "3", "part": "yes"}) {
			t.Errorf("a change in the second opening: %v", got)
		}
		if u, ok := other.Take(); ok {
			t.Errorf("a stopped watch got %v", u)
		}
	})
}

// After damage, a lock that another process keeps, or the end of the time for tries, the failure is
// final: calls get CodeClosed with the reason, subscriptions end, Done is closed.
func TestFinalFailures(t *testing.T) {
	locked := make([]error, 100)
	for i := range locked {
		locked[i] = surgetank.Errorf(surgetank.CodeExists, "in use by process 7")
	}
	refused := make([]error, 1000)
	for i := range refused {
		refused[i] = errDisk
	}
	for name, x := range map[string]struct {
		refuse []error
		opts   supervise.Options
	}{
		"damage":    {[]error{errDisk, surgetank.Errorf(surgetank.CodeCorrupt, "a flipped bit")}, supervise.Options{}},
		"format":    {[]error{surgetank.Errorf(surgetank.CodeInvalid, "level 99")}, supervise.Options{}},
		"locked":    {locked, supervise.Options{}},
		"time over": {refused, supervise.Options{ReopenFor: time.Hour}},
		"no tries":  {nil, supervise.Options{ReopenFor: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, x.opts)
				r.declare("q", surgetank.QueueConfig{})
				sub, err := r.s.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 1})
				if err != nil {
					t.Fatal(err)
				}
				r.mu.Lock()
				r.refuse = x.refuse
				r.mu.Unlock()
				r.failNow()
				<-r.s.Done()
				st := r.s.Status()
				if st.State != supervise.Failed || st.Reason == nil {
					t.Errorf("%+v", st)
				}
				_, err = r.s.Publish(t.Context(), publishing("q", 1))
				code(t, "publish", err, surgetank.CodeClosed)
				if err != nil && !errors.Is(err, st.Reason) {
					t.Errorf("the error does not have the reason: %v", err)
				}
				_, err = r.s.Settle(t.Context(), nil)
				code(t, "settle", err, surgetank.CodeClosed)
				_, err = sub.Receive(t.Context(), nil, 1, 1)
				code(t, "receive", err, surgetank.CodeClosed)
				if err := r.s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Close ends a Supervisor in each state, also while calls wait.
func TestClose(t *testing.T) {
	for _, state := range []string{"serving", "opening", "pausing"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, supervise.Options{})
			r.declare("q", surgetank.QueueConfig{})
			sub, err := r.s.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 1})
			if err != nil {
				t.Fatal(err)
			}
			waits := make(chan error, 1)
			switch state {
			case "opening":
				r.block()
				r.failNow()
			case "pausing":
				r.mu.Lock()
				r.refuse = []error{errDisk, errDisk, errDisk, errDisk, errDisk, errDisk}
				r.mu.Unlock()
				r.failNow()
			}
			if state != "serving" {
				go func() {
					_, err := r.s.Queue(t.Context(), "q")
					waits <- err
				}()
				synctest.Wait()
			}
			if err := r.s.Close(); err != nil {
				t.Error(state, err)
			}
			if state != "serving" {
				code(t, state+": a call that waited", <-waits, surgetank.CodeClosed)
			}
			_, err = sub.Receive(t.Context(), nil, 1, 1)
			code(t, state+": a subscription", err, surgetank.CodeClosed)
			_, err = r.s.Publish(t.Context(), publishing("q", 1))
			code(t, state+": a publish", err, surgetank.CodeClosed)
			if err := r.s.Close(); err != nil {
				t.Error(state, err)
			}
			<-r.s.Done()
		})
	}
}

// A transient queue and its messages stay while the program stays, and end with it.
func TestTransientQueuesContinue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{})
		was := r.declare("mine", surgetank.QueueConfig{Transient: true})
		r.publish("mine", 1, 2)
		r.failNow()
		info, err := r.s.Queue(t.Context(), "mine")
		if err != nil || info.ID != was.ID || info.Ready != 2 || !info.Config.Transient {
			t.Errorf("after a failure: %+v, %v", info, err)
		}
		if err := r.s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := supervise.Open(t.Context(), supervise.Options{Open: r.open})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Queue(t.Context(), "mine")
		code(t, "a transient queue after a restart", err, surgetank.CodeNotFound)
	})
}

// A log that fails soon after each opening is opened less and less often.
func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{Wait: time.Hour})
		defer r.s.Close()
		var times []time.Duration
		began := time.Now()
		for range 10 {
			r.mu.Lock()
			r.refuse = []error{errDisk}
			r.mu.Unlock()
			r.failNow()
			if _, err := r.s.Queues(t.Context()); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Since(began))
			began = time.Now()
		}
		if !slices.IsSorted(times) || times[0] == times[5] {
			t.Error(fmt.Sprint(times))
		}
	})
}

// Subscriptions are attached before an opening serves. They deliver nothing until then: the ack of
// such a delivery would be refused, and the message would stay leased.
func TestNoDeliveryBeforeServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, supervise.Options{})
		defer r.s.Close()
		r.declare("q", surgetank.QueueConfig{})
		sub, err := r.s.Subscribe(t.Context(), "q", surgetank.SubscribeOptions{Credit: 1, Lease: surgetank.LeaseForever})
		if err != nil {
			t.Fatal(err)
		}
		stop, err := r.s.WatchMeta(t.Context(), "test", door.NewMetaFeed(func() {}))
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		r.publish("q", 1, 1)
		receive(t, sub, 1)
		looked := make(chan int, 1)
		r.mu.Lock()
		r.watched = func() { // the subscription is attached, and has leased the message
			<-sub.Ready()
			early, _ := sub.TryReceive(nil, 1, 1<<20)
			looked <- len(early)
		}
		r.mu.Unlock()
		r.failNow()
		if n := <-looked; n != 0 {
			t.Errorf("%d messages were delivered by an opening that does not serve", n)
		}
		d := receive(t, sub, 1)
		res, err := r.s.Settle(t.Context(), []surgetank.Settlement{{Receipt: d[0].Receipt}})
		if err != nil || res[0] != nil {
			t.Error("the ack was refused:", res, err)
		}
	})
}
