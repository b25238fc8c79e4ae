package broker

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/clock"
	"github.com/surgetank/surgetank/internal/commitlog"
	"github.com/surgetank/surgetank/internal/digest"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/memlog"
	"github.com/surgetank/surgetank/internal/queue"
)

// logged is a stepped broker, and its log lines.
type logged struct {
	*byHand
	log bytes.Buffer
}

func openLogged(t *testing.T) *logged {
	l := &logged{byHand: &byHand{t: t, clock: clock.NewManual(start)}}
	o := l.options(memlog.NewStore(), false)
	o.Logger = slog.New(slog.NewTextHandler(&l.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := l.open(o); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *logged) declare(name string, c surgetank.QueueConfig) {
	l.t.Helper()
	d := &queue.Declare{Name: name, Config: c}
	if l.send(d); d.Err != nil {
		l.t.Fatal(d.Err)
	}
}

func (l *logged) put(queues ...string) {
	p := surgetank.Publishing{Queues: queues, Message: surgetank.Message{Body: []byte("x")}}
	l.send(&queue.Publish{Msgs: []queue.Incoming{{Publishing: &p}}, Results: make([]surgetank.PublishResult, 1)})
}

// fail receives a message and settles it.
func (l *logged) fail(name string, s surgetank.Settlement) {
	l.t.Helper()
	c := &queue.Attach{Queue: name, Now: true, Opts: door.SubscribeOptions{SubscribeOptions: surgetank.SubscribeOptions{Credit: 1, ManualCredit: true}}}
	sub := l.NewSubscription(c)
	l.send(c)
	ds, _ := sub.TryReceive(nil, 1, 1<<20)
	if len(ds) != 1 {
		l.t.Fatalf("%d messages of %s", len(ds), name)
	}
	if s.Reason == "" {
		return // no settlement: the lease ends by itself
	}
	s.Receipt = ds[0].Receipt
	l.send(&queue.Settle{Items: []surgetank.Settlement{s}, Results: make([]error, 1)})
}

// lines returns the log lines since the last call.
func (l *logged) lines() []string {
	text := strings.TrimSpace(l.log.String())
	l.log.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// pass lets time pass in steps.
func (l *logged) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		l.clock.Advance(time.Second)
		l.run()
	}
}

// TestNoticesAreSummedUp: for each queue and kind, the first event is logged at once, and later
// events as one sum a minute. The last events are logged, too. Each line advises the operator.
func TestNoticesAreSummedUp(t *testing.T) {
	for _, c := range []struct {
		name string
		once func(l *logged)
		want []string // texts in the first line
	}{
		{"parked", func(l *logged) {
			l.put("q")
			l.fail("q", surgetank.Settlement{Op: surgetank.Reject, Reason: "no such customer"})
		}, []string{"parked", "queue=q", "next=q.dead", `last_reason="no such customer"`, `look="surgetank queue peek q.dead"`, `redrive="surgetank queue redrive q.dead"`}},
		{"attempts", func(l *logged) {
			l.put("once")
			l.fail("once", surgetank.Settlement{Op: surgetank.Nack, Reason: "boom"})
		}, []string{"parked", "queue=once", "last_reason=boom"}},
		{"elsewhere", func(l *logged) {
			l.put("team\x1fits queue")
			l.fail("team\x1fits queue", surgetank.Settlement{Op: surgetank.Reject, Reason: "no"})
		}, []string{"vhost=team", `look="surgetank queue peek 'its queue.dead' --vhost team"`}},
		{"lease", func(l *logged) {
			l.put("short")
			l.fail("short", surgetank.Settlement{})
			l.pass(2 * time.Second)
			l.send(&queue.Purge{Name: "short"})
		}, []string{"leases ended without an ack", "queue=short", `look="surgetank queue show short"`}},
		{"refused", func(l *logged) { l.put("full") }, []string{"publishes were refused", "queue=full", `look="surgetank queue show full"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := openLogged(t)
			l.declare("q", surgetank.QueueConfig{})
			l.declare("once", surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: 1}})
			l.declare("team\x1fits queue", surgetank.QueueConfig{})
			l.declare("short", surgetank.QueueConfig{Lease: time.Second, Retry: surgetank.RetryConfig{Initial: time.Hour}})
			l.declare("full", surgetank.QueueConfig{MaxMessages: 1})
			l.put("full")
			c.once(l)
			first := l.lines()
			if len(first) != 1 || !strings.Contains(first[0], "messages=1 ") {
				t.Fatalf("at first it logged %q", first)
			}
			for _, want := range c.want {
				if !strings.Contains(first[0], want) {
					t.Errorf("the line %q lacks %s", first[0], want)
				}
			}
			for range 7 {
				c.once(l)
			}
			if more := l.lines(); more != nil {
				t.Errorf("at once it logged %q, too", more)
			}
			l.pass(3 * time.Minute)
			if last := l.lines(); len(last) != 1 || !strings.Contains(last[0], "messages=7 ") {
				t.Errorf("later it logged %q", last)
			}
		})
	}
}

// TestNoticesOfManyQueuesAreBounded: many events in many queues are logged in few lines, and the
// sums are right.
func TestNoticesOfManyQueuesAreBounded(t *testing.T) {
	l := openLogged(t)
	const queues = 500
	var names []string
	for i := range queues {
		names = append(names, fmt.Sprintf("q%d", i))
		l.declare(names[i], surgetank.QueueConfig{MaxMessages: 1})
	}
	l.put(names...)
	l.put(names...) // publish to all queues at once
	for _, n := range names {
		l.put(n) // and publish to one queue after another
	}
	l.pass(2 * time.Minute)
	sum, lines := 0, l.lines()
	for _, line := range lines {
		var n int
		_, rest, _ := strings.Cut(line, "messages=")
		fmt.Sscan(rest, &n)
		sum += n
	}
	if len(lines) > 2*65+65 || sum != 2*queues {
		t.Errorf("%d refused publishes in %d lines, want %d in few:\n%s", sum, len(lines), 2*queues, strings.Join(lines[max(0, len(lines)-3):], "\n"))
	}
}

// TestNoticesAtTheEnd: sums that were not logged yet are logged when the broker stops. A circle of
// queues is logged at once.
func TestNoticesAtTheEnd(t *testing.T) {
	l := openLogged(t)
	l.noteAll([]queue.Notice{{What: queue.Circled, Queue: "a", To: "b", Messages: 2}}, l.now())
	l.noteAll([]queue.Notice{{What: queue.Circled, Queue: "a", To: "b", Messages: 3}}, l.now())
	l.noteAll([]queue.Notice{{What: queue.Parked, Queue: "a", To: "inner\x1fdoor", Messages: 3}}, l.now()) // the queue inner only passes messages on, so this is not logged
	l.sayRest()
	lines := l.lines()
	if len(lines) != 2 || !strings.Contains(lines[0], "queue=a next=b messages=2") || !strings.Contains(lines[1], "messages=3") {
		t.Errorf("it logged %q", lines)
	}
}

// TestNoticesWakeTheLoop: a broker that has nothing else to do logs the sums at the end of the
// period.
func TestNoticesWakeTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		b, err := Open(Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})),
			OpenLog: func(from commitlog.Offset, _ LogHooks) (commitlog.Replay, commitlog.Log, error) {
				return memlog.NewStore().Open(memlog.Options{From: from})
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, _, err := b.DeclareQueue(t.Context(), "q", surgetank.QueueConfig{MaxMessages: 1}, surgetank.DeclareNew); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if _, err := b.Publish(t.Context(), []surgetank.Publishing{{Queues: []string{"q"}}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * digest.Period) // sleeps on the simulated clock of the synctest bubble
		synctest.Wait()
		if text := log.String(); !strings.Contains(text, "messages=1 ") || !strings.Contains(text, "messages=2 ") {
			t.Errorf("it logged %q", text)
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
