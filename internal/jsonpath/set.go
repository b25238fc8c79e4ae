package jsonpath

// Set finds the values of many paths in one pass over a body. It is immutable, and many goroutines
// may use it.
type Set struct {
	root node
	n    int
}

// node is one position in the tree of a set's paths.
type node struct {
	paths []int   // the paths that end at this node
	below []int   // the paths that end at this node or below
	names []field // the continuations by name
	elems []elem  // the continuations by index
}

type field struct {
	name string
	node *node
}

type elem struct {
	index int
	node  *node
}

// NewSet returns a set of paths. Scan returns the i-th path's value as the i-th value. The value of
// a zero Path is always missing.
func NewSet(paths ...Path) *Set {
	s := &Set{n: len(paths)}
	for i, p := range paths {
		if p.expr == "" {
			continue
		}
		at := &s.root
		at.below = append(at.below, i)
		for _, st := range p.steps {
			at = at.child(st)
			at.below = append(at.below, i)
		}
		at.paths = append(at.paths, i)
	}
	return s
}

// Len returns the number of paths.
func (s *Set) Len() int { return s.n }

func (n *node) child(st step) *node {
	if st.isIndex {
		for _, e := range n.elems {
			if e.index == st.index {
				return e.node
			}
		}
		c := &node{}
		n.elems = append(n.elems, elem{st.index, c})
		return c
	}
	if c := n.field([]byte(st.name)); c != nil {
		return c
	}
	c := &node{}
	n.names = append(n.names, field{st.name, c})
	return c
}

func (n *node) field(name []byte) *node {
	for i := range n.names {
		if n.names[i].name == string(name) {
			return n.names[i].node
		}
	}
	return nil
}

func (n *node) elem(index int) *node {
	for i := range n.elems {
		if n.elems[i].index == index {
			return n.elems[i].node
		}
	}
	return nil
}

// Scan reads a body to its end and sets out[i] to the value of path i, as a part of body. out must
// have space for Len values. The error is a *SyntaxError. After an error, out is not valid.
func (s *Set) Scan(body []byte, out []Value) error {
	out = out[:s.n]
	clear(out)
	sc := scanner{b: body, out: out}
	sc.space()
	if !sc.value(&s.root) {
		return sc.error()
	}
	sc.space()
	if sc.i < len(body) {
		sc.fail(sc.i, "something follows the end of the value")
		return sc.error()
	}
	return nil
}

// Valid returns an error if a body is not JSON by the rules of this package.
func Valid(body []byte) error { return empty.Scan(body, nil) }

var empty = NewSet()
