package queue

// timed is an event with a time.
type timed struct {
	at  int64 // nanoseconds since 1970
	key uint64
}

// timeHeap is a binary min-heap of events, ordered by time and then key. A stale entry, which later
// events made invalid, stays until it is popped. The caller of pop checks whether an entry is still
// valid.
type timeHeap []timed

func (h timeHeap) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].key < h[j].key
}

func (h *timeHeap) push(x timed) {
	*h = append(*h, x)
	s := *h
	for i := len(s) - 1; i > 0; {
		p := (i - 1) / 2
		if !s.less(i, p) {
			break
		}
		s[i], s[p] = s[p], s[i]
		i = p
	}
}

func (h *timeHeap) pop() timed {
	s := *h
	top := s[0]
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	s.down(0)
	if cap(s) > 1024 && n < cap(s)/4 {
		s = append(make(timeHeap, 0, cap(s)/2), s...)
	}
	*h = s
	return top
}

func (h timeHeap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h.less(c+1, c) {
			c++
		}
		if !h.less(c, i) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

// keep drops the entries for which f is false.
func (h *timeHeap) keep(f func(timed) bool) {
	s := (*h)[:0]
	for _, x := range *h {
		if f(x) {
			s = append(s, x)
		}
	}
	for i := len(s)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
	*h = s
}

// due pops the first entry if its time has come.
func (h *timeHeap) due(now int64) (timed, bool) {
	if len(*h) == 0 || (*h)[0].at > now {
		return timed{}, false
	}
	return h.pop(), true
}
