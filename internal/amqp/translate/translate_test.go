package translate

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/amqptest"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/settings"
)

func TestExpiration(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "-0": 0, "5": 5, "000010": 10, "315360000000": 315360000000} {
		if got, err := parseExpiration(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-", "+1", " 1", "1e3", "0x1", "315360000001", "1.", "abc"} {
		if n, err := parseExpiration(in); err == nil {
			t.Errorf("%q was parsed as %d", in, n)
		}
	}
}

func TestQueueConfigs(t *testing.T) {
	for _, tt := range []struct {
		args wire.Table
		want func(*surgetank.QueueConfig)
	}{
		{nil, func(*surgetank.QueueConfig) {}},
		{amqptest.Args("x-message-ttl", 1500), func(c *surgetank.QueueConfig) { c.TTL = 1500 * time.Millisecond }},
		{amqptest.Args("x-message-ttl", 0), func(c *surgetank.QueueConfig) { c.TTL = leastTTL }},
		{amqptest.Args("x-max-length", 5, "x-max-length-bytes", 9), func(c *surgetank.QueueConfig) { c.MaxMessages, c.MaxBytes = 5, 9 }},
		{amqptest.Args("x-max-length", 5, "x-dead-letter-exchange", "x"), func(c *surgetank.QueueConfig) {
			c.MaxMessages, c.DeadLetter, c.Overflow = 5, DeadLetterQueue("/"), surgetank.OverflowDeadLetter
		}},
		{amqptest.Args("x-max-length", 5, "x-overflow", "reject-publish"), func(c *surgetank.QueueConfig) { c.MaxMessages, c.Overflow = 5, surgetank.OverflowReject }},
		{amqptest.Args("x-max-length", 0), func(c *surgetank.QueueConfig) { c.TTL = leastTTL }},
		{amqptest.Args("x-max-priority", 9), func(c *surgetank.QueueConfig) { c.MaxPriority = 9 }},
		{amqptest.Args("x-queue-type", "quorum", "x-delivery-limit", -1), func(*surgetank.QueueConfig) {}},
		{amqptest.Args("x-queue-type", "quorum", "x-max-priority", 4), func(c *surgetank.QueueConfig) { c.MaxPriority = 4 }},
		{amqptest.Args("x-queue-type", "quorum", "x-delivery-limit", 2), func(c *surgetank.QueueConfig) { c.Retry.MaxAttempts = 3 }},
	} {
		a, err := ParseQueueArgs(QueueAttrs{Durable: true, Args: tt.args}, "q")
		if err != nil {
			t.Fatal(err)
		}
		want := surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: "-", Overflow: surgetank.OverflowDropOldest}
		tt.want(&want)
		got := QueueConfig("/", a)
		amqptest.Same(t, got, want)
		if err := settings.Validate(got); err != nil {
			t.Errorf("% x: %v", tt.args, err)
		}
	}
}

func TestDeathHistory(t *testing.T) {
	at := time.Unix(1000, 0)
	ev := func(queue, reason string) death {
		return death{queue: queue, reason: reason, exchange: "x", keys: []string{"k"}, time: at}
	}
	show := func(h wire.Table) (s string) {
		for _, e := range readDeaths(h) {
			s += fmt.Sprintf("%s %s %d; ", e.queue, e.reason, e.count)
		}
		for _, n := range []string{"x-first-death-queue", "x-last-death-queue"} {
			v, _ := h.Get(n)
			s += string(v.Data) + " "
		}
		return s
	}
	h := WithDeaths(amqptest.Args("keep", "me", "x-death", "forged", "x-first-death-queue", "forged"), false, []death{ev("a", "expired")})
	amqptest.Same(t, show(h), "a expired 1; a a ")
	h = WithDeaths(h, true, []death{ev("b", "rejected"), ev("a", "expired")})
	amqptest.Same(t, show(h), "a expired 2; b rejected 1; a a ")
	h = WithDeaths(h, true, []death{ev("a", "maxlen")})
	amqptest.Same(t, show(h), "a maxlen 1; a expired 2; b rejected 1; a a ")
	if v, _ := h.Get("keep"); string(v.Data) != "me" {
		t.Error("another header was lost")
	}
	if err := h.Validate(); err != nil {
		t.Error(err)
	}
	for queue, want := range map[string]bool{"a": true, "b": false, "c": false} {
		if DeathCycle(h, queue) != want {
			t.Errorf("DeathCycle for %s is not %v", queue, want)
		}
	}
}

func TestServerNames(t *testing.T) {
	ok := regexp.MustCompile(`^amq\.gen-[A-Za-z0-9_-]{22}$`)
	seen := map[string]bool{}
	for range 100 {
		n := RandomName("amq.gen-")
		if !ok.MatchString(n) || seen[n] {
			t.Error(n)
		}
		seen[n] = true
	}
	if got := CleanName("line\nbreak\r"); got != "linebreak" {
		t.Errorf("%q", got)
	}
}

// TestForgedToken tests that a publisher's header does not replace or repeat the fencing token.
func TestForgedToken(t *testing.T) {
	for name, forged := range map[string]wire.Table{
		"none":   wire.Table(nil).AddString("keep", "me"),
		"text":   wire.Table(nil).AddString(FencingHeader, "mine").AddString("keep", "me"),
		"number": wire.Table(nil).AddString("keep", "me").AddInt(FencingHeader, 1<<62),
		"table":  wire.Table(nil).AddTable(FencingHeader, wire.Table(nil).AddInt("a", 1)).AddString("keep", "me"),
		"twice":  wire.Table(nil).AddInt(FencingHeader, 8).AddInt(FencingHeader, 9).AddString("keep", "me"),
	} {
		p := wire.Properties{Flags: wire.HasHeaders, Headers: forged}
		c, err := ParseContent("orders", p.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		d := surgetank.Delivery{FencingToken: 7, Message: c.Template}
		_, _, block, _ := Outgoing(&d, false, nil)
		got, err := wire.ParseProperties(block)
		if err != nil {
			t.Fatal(err)
		}
		if want := wire.Table(nil).AddString("keep", "me").AddInt(FencingHeader, 7); string(got.Headers) != string(want) {
			t.Errorf("%s: the consumer gets %q, want %q", name, got.Headers, want)
		}
	}
}
