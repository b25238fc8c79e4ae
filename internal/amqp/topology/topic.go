package topology

import (
	"slices"
	"strings"
)

// topicTrie has the patterns of a topic exchange, one node for each word. A key is matched as by a
// finite automaton, which is in several nodes at once. So a key costs at most words × nodes steps,
// for any mixture of "#" in the patterns. Trying every split for each "#" would cost exponential
// time.
type topicTrie struct {
	root topicNode
}

type topicNode struct {
	words    map[string]*topicNode
	star     *topicNode
	hash     *topicNode
	isHash   bool // reached by "#": also matches every further word
	bindings map[string]*binding
}

// patternWords splits a pattern. "#.#" equals "#" and is replaced by it. An empty pattern has no
// words, like an empty key.
func patternWords(pattern string) []string {
	if pattern == "" {
		return nil
	}
	words := strings.Split(pattern, ".")
	return slices.CompactFunc(words, func(a, b string) bool { return a == "#" && b == "#" })
}

func (t *topicTrie) add(b *binding) {
	n := &t.root
	for _, w := range patternWords(b.key) {
		var next **topicNode
		switch w {
		case "*":
			next = &n.star
		case "#":
			next = &n.hash
		default:
			if n.words == nil {
				n.words = map[string]*topicNode{}
			}
			c := n.words[w]
			if c == nil {
				c = &topicNode{}
				n.words[w] = c
			}
			n = c
			continue
		}
		if *next == nil {
			*next = &topicNode{isHash: w == "#"}
		}
		n = *next
	}
	if n.bindings == nil {
		n.bindings = map[string]*binding{}
	}
	n.bindings[b.id] = b
}

func (t *topicTrie) remove(b *binding) { t.root.remove(patternWords(b.key), b.id) }

// remove removes a binding below n, and reports whether n is then unused.
func (n *topicNode) remove(words []string, id string) (empty bool) {
	if len(words) == 0 {
		delete(n.bindings, id)
	} else {
		switch w := words[0]; w {
		case "*":
			if n.star != nil && n.star.remove(words[1:], id) {
				n.star = nil
			}
		case "#":
			if n.hash != nil && n.hash.remove(words[1:], id) {
				n.hash = nil
			}
		default:
			if c := n.words[w]; c != nil && c.remove(words[1:], id) {
				delete(n.words, w)
			}
		}
	}
	return len(n.bindings) == 0 && len(n.words) == 0 && n.star == nil && n.hash == nil
}

// match calls found for every binding whose pattern matches key. It may call found several times
// for one binding.
func (t *topicTrie) match(key string, found func(*binding)) {
	active := (&nodeSet{}).enter(&t.root)
	next := &nodeSet{}
	for rest, more := key, key != ""; more; {
		var word string
		word, rest, more = strings.Cut(rest, ".")
		next.reset()
		for _, n := range active.list {
			if n.isHash {
				next.enter(n)
			}
			if c := n.words[word]; c != nil {
				next.enter(c)
			}
			if n.star != nil {
				next.enter(n.star)
			}
		}
		active, next = next, active
	}
	for _, n := range active.list {
		for _, b := range n.bindings {
			found(b)
		}
	}
}

// nodeSet is a set of nodes. It is a list while it is small.
type nodeSet struct {
	list []*topicNode
	seen map[*topicNode]struct{}
}

const smallSet = 32

func (s *nodeSet) reset() {
	s.list = s.list[:0]
	clear(s.seen)
}

// enter adds a node and the nodes that are reached from it without a word: its "#".
func (s *nodeSet) enter(n *topicNode) *nodeSet {
	for ; n != nil; n = n.hash {
		if !s.add(n) {
			break
		}
	}
	return s
}

func (s *nodeSet) add(n *topicNode) bool {
	if len(s.list) < smallSet {
		if slices.Contains(s.list, n) {
			return false
		}
	} else {
		if s.seen == nil {
			s.seen = map[*topicNode]struct{}{}
		}
		if len(s.seen) == 0 {
			for _, o := range s.list {
				s.seen[o] = struct{}{}
			}
		}
		if _, ok := s.seen[n]; ok {
			return false
		}
		s.seen[n] = struct{}{}
	}
	s.list = append(s.list, n)
	return true
}
