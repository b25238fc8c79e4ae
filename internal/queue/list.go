package queue

// list is a doubly linked list whose nodes are fields of its elements. Adding, moving and removing
// an element takes constant time and allocates nothing. The zero value is an empty list.
type list[T any] struct {
	first, last *node[T]
	n           int
}

// node is the position of one element in one list. An element has one node for each list that it
// can be in. Set the node's field named of before you use the node.
type node[T any] struct {
	of         *T
	in         *list[T] // nil: in no list
	prev, next *node[T]
}

// push appends an element that is in no list.
func (l *list[T]) push(x *node[T]) {
	x.in, x.prev = l, l.last
	if l.last == nil {
		l.first = x
	} else {
		l.last.next = x
	}
	l.last = x
	l.n++
}

// remove removes an element. It does nothing if the element is not in this list.
func (l *list[T]) remove(x *node[T]) {
	if x.in != l {
		return
	}
	if x.prev == nil {
		l.first = x.next
	} else {
		x.prev.next = x.next
	}
	if x.next == nil {
		l.last = x.prev
	} else {
		x.next.prev = x.prev
	}
	x.in, x.prev, x.next = nil, nil, nil
	l.n--
}

// front returns the first element, or nil.
func (l *list[T]) front() *T {
	if l.first == nil {
		return nil
	}
	return l.first.of
}

// all yields the elements in order. The caller may remove the element that was yielded last.
func (l *list[T]) all(yield func(*T) bool) {
	for x := l.first; x != nil; {
		next := x.next
		if !yield(x.of) {
			return
		}
		x = next
	}
}
