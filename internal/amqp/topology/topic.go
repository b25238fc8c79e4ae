package topology

import (
	"slices"
	"strings"
)

// topicTrie holds the patterns of a topic exchange word by word. A pattern is matched as a finite
// automaton that is in several nodes at once, so that a key costs at most words × nodes steps,
// whatever mixture of "#" the patterns have. (Trying every split for each "#" one after another
// would cost exponentially many.)
type topicTrie struct {
	root topicNode
}

type topicNode struct {
	words    map[string]*topicNode
	star     *topicNode
	hash     *topicNode
	isHash   bool // reached by "#": stays active for any further word
	bindings map[string]*binding
}

// patternWords cuts a pattern, taking "#.#" as the "#" it equals. An empty pattern, as an empty
// key, has no words.
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

// remove takes a binding away below n and tells whether n is of no more use.
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

// match calls found for every binding whose pattern fits key; one may come more than once.
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

// nodeSet is a set of nodes, a list while it is small.
type nodeSet struct {
	list []*topicNode
	seen map[*topicNode]struct{}
}

const smallSet = 32

func (s *nodeSet) reset() {
	s.list = s.list[:0]
	clear(s.seen)
}

// enter adds a node and all that is reached from it by no word at all: its "#".
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
