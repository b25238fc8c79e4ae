package amqp

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/settings"
)

// matchTopic is the rule of topic patterns in its plainest, exponential, form.
func matchTopic(pattern, key []string) bool {
	if len(pattern) == 0 {
		return len(key) == 0
	}
	switch pattern[0] {
	case "#":
		return matchTopic(pattern[1:], key) || len(key) > 0 && matchTopic(pattern, key[1:])
	case "*":
		return len(key) > 0 && matchTopic(pattern[1:], key[1:])
	}
	return len(key) > 0 && key[0] == pattern[0] && matchTopic(pattern[1:], key[1:])
}

// topicWords cuts a key or pattern; an empty one has no words.
func topicWords(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ".")
}

func TestTopicTrieAgreesWithTheRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := func(of []string, most int) *rapid.Generator[string] {
			return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(of), 0, most), func(w []string) string { return strings.Join(w, ".") })
		}
		trie := &topicTrie{}
		bindings := map[string]*binding{}
		for i, p := range rapid.SliceOfN(words([]string{"a", "b", "", "*", "#", "#"}, 6), 0, 12).Draw(t, "patterns") {
			b := &binding{id: fmt.Sprint(i), key: p}
			trie.add(b)
			bindings[b.id] = b
		}
		for _, b := range bindings {
			if rapid.Bool().Draw(t, "removed") {
				trie.remove(b)
				trie.remove(b) // again: nothing happens
				delete(bindings, b.id)
			}
		}
		key := words([]string{"a", "b", "c", ""}, 6).Draw(t, "key")
		var got, want []string
		trie.match(key, func(b *binding) { got = append(got, b.id) })
		slices.Sort(got)
		got = slices.Compact(got)
		for id, b := range bindings {
			if matchTopic(topicWords(b.key), topicWords(key)) {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			for _, b := range bindings {
				t.Logf("%s: %q", b.id, b.key)
			}
			t.Fatalf("key %q: %v, want %v", key, got, want)
		}
	})
}

// TestTopicWorkIsBounded: patterns made of "#" against long keys, which cost exponential time when each split is tried.
func TestTopicWorkIsBounded(t *testing.T) {
	trie := &topicTrie{}
	trie.add(&binding{id: "1", key: strings.Repeat("#.a.", 60) + "b"})
	trie.add(&binding{id: "2", key: strings.Repeat("#.", 120) + "c"})
	trie.add(&binding{id: "3", key: strings.Repeat("#.*.", 60) + "#"})
	found := 0
	for _, key := range []string{strings.Repeat("a.", 127), strings.Repeat(".", 255), strings.Repeat("a.", 126) + "c"} {
		trie.match(key, func(*binding) { found++ })
	}
	if found != 4 {
		t.Errorf("found %d", found)
	}
	if n := len(patternWords("#.#.#.a.#.#")); n != 3 {
		t.Errorf("%d words", n)
	}
}

func TestEmptyTrieHoldsNothing(t *testing.T) {
	trie := &topicTrie{}
	for _, k := range []string{"a.b.c", "a.*.#", "#", "*"} {
		b := &binding{id: k, key: k}
		trie.add(b)
		trie.remove(b)
	}
	if r := &trie.root; len(r.words) != 0 || r.star != nil || r.hash != nil || len(r.bindings) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestUnackedAgreesWithAMap drives the list and a map with the same steps.
func TestUnackedAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &unackedList{}
		model := map[uint64]bool{}
		tag := uint64(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "op") > 0 {
				tag += uint64(rapid.IntRange(1, 2).Draw(t, "gap")) // deliveries without acknowledgement take tags as well
				l.push(unacked{tag: tag})
				model[tag] = true
				continue
			}
			at := uint64(rapid.IntRange(0, int(tag)+1).Draw(t, "tag"))
			multiple := rapid.Bool().Draw(t, "multiple")
			got, ok := l.take(nil, at, multiple)
			var want []uint64
			wantOK := model[at] || multiple && at == 0
			if wantOK {
				for n := range model {
					if n == at || multiple && (n < at || at == 0) {
						want = append(want, n)
					}
				}
				slices.Sort(want)
				for _, n := range want {
					delete(model, n)
				}
			}
			var tags []uint64
			for _, u := range got {
				tags = append(tags, u.tag)
			}
			if ok != wantOK || !slices.Equal(tags, want) {
				t.Fatalf("take %d multiple %v: %v %v, want %v %v", at, multiple, tags, ok, want, wantOK)
			}
			if ok && rapid.IntRange(0, 4).Draw(t, "rollback") == 0 {
				l.restore(got)
				for _, n := range want {
					model[n] = true
				}
			}
			if l.live != len(model) || len(l.list)-l.head > 2*l.live+65 {
				t.Fatalf("%d live of %d, want %d", l.live, len(l.list)-l.head, len(model))
			}
		}
	})
}

// TestConfirmsTellEachOnce settles publishes in any order and reads what the client would.
func TestConfirmsTellEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		order := rapid.Permutation(seqs(n)).Draw(t, "order")
		outcome := map[uint64]bool{}
		told := map[uint64]bool{}
		f := &confirms{}
		last := uint64(0)
		for _, seq := range order {
			ok := rapid.IntRange(0, 5).Draw(t, "ok") > 0
			outcome[seq] = ok
			f.settle(seq, ok)
			if !rapid.Bool().Draw(t, "write") && len(outcome) < n {
				continue
			}
			for b := f.append(nil, 1); len(b) > 0; {
				fr, size, err := wire.NextFrame(b, 4096)
				if err != nil {
					t.Fatal(err)
				}
				b = b[size:]
				m, err := wire.ParseMethod(fr.Payload)
				if err != nil {
					t.Fatal(err)
				}
				switch m := m.(type) {
				case *wire.BasicAck:
					first := m.DeliveryTag
					if m.Multiple {
						first = last + 1
					}
					for s := first; s <= m.DeliveryTag; s++ {
						tell(t, told, outcome, s, true)
					}
					last = m.DeliveryTag
				case *wire.BasicNack:
					tell(t, told, outcome, m.DeliveryTag, false)
					last = m.DeliveryTag
				}
			}
		}
		if len(told) != n {
			t.Fatalf("told of %d, want %d", len(told), n)
		}
	})
}

func seqs(n int) []uint64 {
	s := make([]uint64, n)
	for i := range s {
		s[i] = uint64(i + 1)
	}
	return s
}

func tell(t *rapid.T, told, outcome map[uint64]bool, seq uint64, ok bool) {
	if _, twice := told[seq]; twice {
		t.Fatalf("told of %d twice", seq)
	}
	if was, settled := outcome[seq]; !settled || was != ok {
		t.Fatalf("told that %d is %v, it is %v (settled %v)", seq, ok, was, settled)
	}
	told[seq] = ok
}

func TestHeadersMatch(t *testing.T) {
	binding := func(pairs ...any) wire.Table { return args(pairs...) }
	for _, tt := range []struct {
		binding, headers wire.Table
		want             bool
	}{
		{binding(), args(), true},
		{binding(), args("a", 1), true},
		{binding("x-match", "any"), args("a", 1), false},
		{binding("x-match", "all", "a", 1, "b", "x"), args("a", int64(1), "b", "x", "c", 1), true},
		{binding("x-match", "all", "a", 1, "b", "x"), args("a", 1), false},
		{binding("x-match", "any", "a", 1, "b", "x"), args("b", "x"), true},
		{binding("x-match", "any", "a", 1), args("a", "1"), false},
		{binding("a", 1), args("a", true), false},
		{binding("x-match", "all", "x-k", 1), args(), true}, // names with x- do not count
		{binding("x-match", "any", "x-k", 1), args("x-k", 1), false},
		{binding("x-match", "all-with-x", "x-k", 1), args(), false},
		{binding("x-match", "any-with-x", "x-k", 1), args("x-k", 1), true},
		{binding().Add("a", wire.Value{Tag: 'V'}), args("a", "anything"), true},
		{binding().Add("a", wire.Value{Tag: 'V'}), args("b", 1), false},
	} {
		m, err := parseHeadersMatch(tt.binding)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.matches(tt.headers); got != tt.want {
			t.Errorf("% x against % x: %v", tt.binding, tt.headers, got)
		}
	}
}

func TestExpiration(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "-0": 0, "5": 5, "000010": 10, "315360000000": 315360000000} {
		if got, err := parseExpiration(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-", "+1", " 1", "1e3", "0x1", "315360000001", "1.", "abc"} {
		if n, err := parseExpiration(in); err == nil {
			t.Errorf("%q is taken for %d", in, n)
		}
	}
}

func TestQueueConfigs(t *testing.T) {
	for _, tt := range []struct {
		args wire.Table
		want func(*surgetank.QueueConfig)
	}{
		{nil, func(*surgetank.QueueConfig) {}},
		{args("x-message-ttl", 1500), func(c *surgetank.QueueConfig) { c.TTL = 1500 * time.Millisecond }},
		{args("x-message-ttl", 0), func(c *surgetank.QueueConfig) { c.TTL = leastTTL }},
		{args("x-max-length", 5, "x-max-length-bytes", 9), func(c *surgetank.QueueConfig) { c.MaxMessages, c.MaxBytes = 5, 9 }},
		{args("x-max-length", 5, "x-dead-letter-exchange", "x"), func(c *surgetank.QueueConfig) {
			c.MaxMessages, c.DeadLetter, c.Overflow = 5, deadLetterQueue("/"), surgetank.OverflowDeadLetter
		}},
		{args("x-max-length", 5, "x-overflow", "reject-publish"), func(c *surgetank.QueueConfig) { c.MaxMessages, c.Overflow = 5, surgetank.OverflowReject }},
		{args("x-max-length", 0), func(c *surgetank.QueueConfig) { c.TTL = leastTTL }},
		{args("x-max-priority", 9), func(c *surgetank.QueueConfig) { c.MaxPriority = 9 }},
		{args("x-queue-type", "quorum", "x-delivery-limit", -1), func(*surgetank.QueueConfig) {}},
		{args("x-queue-type", "quorum", "x-max-priority", 4), func(c *surgetank.QueueConfig) { c.MaxPriority = 4 }},
		{args("x-queue-type", "quorum", "x-delivery-limit", 2), func(c *surgetank.QueueConfig) { c.Retry.MaxAttempts = 3 }},
	} {
		a, err := parseQueueArgs(queueAttrs{durable: true, args: tt.args}, "q")
		if err != nil {
			t.Fatal(err)
		}
		want := surgetank.QueueConfig{Retry: surgetank.RetryConfig{MaxAttempts: -1, Initial: -1}, DeadLetter: "-", Overflow: surgetank.OverflowDropOldest}
		tt.want(&want)
		got := queueConfig("/", a)
		same(t, got, want)
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
	h := withDeaths(args("keep", "me", "x-death", "forged", "x-first-death-queue", "forged"), false, []death{ev("a", "expired")})
	same(t, show(h), "a expired 1; a a ")
	h = withDeaths(h, true, []death{ev("b", "rejected"), ev("a", "expired")})
	same(t, show(h), "a expired 2; b rejected 1; a a ")
	h = withDeaths(h, true, []death{ev("a", "maxlen")})
	same(t, show(h), "a maxlen 1; a expired 2; b rejected 1; a a ")
	if v, _ := h.Get("keep"); string(v.Data) != "me" {
		t.Error("another header was lost")
	}
	if err := h.Validate(); err != nil {
		t.Error(err)
	}
	for queue, want := range map[string]bool{"a": true, "b": false, "c": false} {
		if deathCycle(h, queue) != want {
			t.Errorf("cycle to %s is not %v", queue, want)
		}
	}
}

func TestServerNames(t *testing.T) {
	ok := regexp.MustCompile(`^amq\.gen-[A-Za-z0-9_-]{22}$`)
	seen := map[string]bool{}
	for range 100 {
		n := randomName("amq.gen-")
		if !ok.MatchString(n) || seen[n] {
			t.Error(n)
		}
		seen[n] = true
	}
	if got := cleanName("line\nbreak\r"); got != "linebreak" {
		t.Errorf("%q", got)
	}
}

// TestADeliveryIsNeverLateEarly: whole seconds are what is kept, and a consumer has its whole time.
func TestADeliveryIsNeverLateEarly(t *testing.T) {
	for _, limit := range []time.Duration{time.Millisecond, time.Second, 2 * time.Second, 2500 * time.Millisecond} {
		for at := time.Duration(0); at < 2*time.Second; at += 100 * time.Millisecond {
			q := &queue{}
			q.set.Store(&queueAttrs{ackTimeout: limit})
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
