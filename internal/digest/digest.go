// Package digest sums up events that can happen very often, so that a log has few lines about them.
package digest

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

const (
	// Period is how often one key's line is written at most.
	Period = time.Minute
	// MaxKeys is how many keys of one kind are told apart. Events of further keys are one sum under
	// the kind's key with an empty Queue, so a kind has at most MaxKeys+1 lines a period.
	MaxKeys = 64
)

// Key names what happened and where. Events of one key are summed up.
type Key struct {
	Kind      string
	Queue, To string // To is a second queue, where two have to do with it
}

// Line is what is to be said of a key.
type Line struct {
	Key
	Count  int64  // events since the line before
	Reason string // the newest
}

// Lines sums up events. A key's first event is said at once. What follows within Period is said in
// one line at the end of it, and so on as long as there is something to say. The zero value is
// ready. It belongs to one goroutine.
//
// Times are nanoseconds of any clock that never goes back.
type Lines struct {
	keys  map[Key]*state
	kinds map[string]int // keys of each kind
	due   int64          // nothing is to be said before; 0: not known
}

type state struct {
	until int64 // the end of the period
	line  Line
}

// Note takes n events.
func (l *Lines) Note(k Key, n int64, reason string, now int64) {
	s := l.keys[k]
	if s == nil && l.kinds[k.Kind] >= MaxKeys {
		k = Key{Kind: k.Kind}
		s = l.keys[k]
	}
	if s == nil {
		if l.keys == nil {
			l.keys, l.kinds = map[Key]*state{}, map[string]int{}
		}
		s = &state{until: now, line: Line{Key: k}}
		l.keys[k] = s
		if k.Queue != "" {
			l.kinds[k.Kind]++
		}
		l.due = 0
	}
	s.line.Count += n
	s.line.Reason = reason
}

// Due says when Take has something to do; MaxInt64: not before something is noted.
func (l *Lines) Due() int64 {
	if len(l.keys) == 0 {
		return math.MaxInt64
	}
	if l.due == 0 {
		l.due = math.MaxInt64
		// unordered: the least is looked for
		for _, s := range l.keys {
			l.due = min(l.due, s.until)
		}
	}
	return l.due
}

// Take returns what is to be said now, in the order of keys, and forgets keys of which nothing
// happened in their period.
func (l *Lines) Take(now int64) (lines []Line) {
	if now < l.Due() {
		return nil
	}
	for _, k := range slices.SortedFunc(maps.Keys(l.keys), compare) {
		s := l.keys[k]
		switch {
		case now < s.until:
		case s.line.Count == 0:
			delete(l.keys, k)
			if k.Queue != "" {
				l.kinds[k.Kind]--
			}
		default:
			lines = append(lines, s.line)
			s.line, s.until = Line{Key: k}, now+int64(Period)
		}
	}
	l.due = 0
	return lines
}

// Rest returns all that was not said yet, for the end of a program.
func (l *Lines) Rest() (lines []Line) {
	for _, k := range slices.SortedFunc(maps.Keys(l.keys), compare) {
		if s := l.keys[k]; s.line.Count > 0 {
			lines = append(lines, s.line)
		}
	}
	*l = Lines{}
	return lines
}

func compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.To, b.To))
}
