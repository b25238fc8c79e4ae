package topology

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// matchTopic is the rule of topic patterns in its simplest form, which takes exponential time.
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
				trie.remove(b) // a second removal changes nothing
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

// TestTopicWorkIsBounded matches patterns of "#" against long keys. They cost exponential time if
// each split is tried.
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

// BenchmarkRouteTopic routes to one of a thousand patterns by keys that are in no cache.
func BenchmarkRouteTopic(b *testing.B) {
	trie := &topicTrie{}
	for i := range 1000 {
		trie.add(&binding{id: string(rune(i)), key: strings.ReplaceAll("a.*.N.#", "N", string(rune('a'+i%26)))})
	}
	b.ReportAllocs()
	for b.Loop() {
		trie.match("a.b.c.d.e", func(*binding) {})
	}
}

// topicWords splits a key or pattern. An empty one has no words.
func topicWords(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ".")
}
