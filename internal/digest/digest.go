// Package digest sums up very frequent events, so that few log lines are written.
package digest

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

const (
	// Period is the shortest time between two lines of one key.
	Period = time.Minute
	// MaxKeys is the most keys of one kind that have lines of their own. Events of further keys are
	// summed up under the kind's key with an empty Queue. So a kind has at most MaxKeys+1 lines in
	// a period.
	MaxKeys = 64
)

// Key is the kind of an event and the queues it is about. Events with the same key are summed up.
type Key struct {
	Kind      string
	Queue, To string // To is a second queue, for events of two queues
}

// Line is one log line about a key.
type Line struct {
	Key
	Count  int64  // events since the previous line
	Reason string // reason of the newest event
}

// Lines sums up events. A key's first event makes a line at once. The events of the following
// Period make one line at the end of the period, and so on as long as there are events. The zero
// value is ready. Only one goroutine may use it.
//
// Times are nanoseconds of any clock that never goes back.
type Lines struct {
	keys  map[Key]*state
	kinds map[string]int // number of keys of each kind
	due   int64          // no line is due before this time; 0: not known
}

type state struct {
	until int64 // the end of the key's present period
	line  Line
}

// Note counts n events.
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

// Due returns the time of the next call of Take, or MaxInt64 if there are no events.
func (l *Lines) Due() int64 {
	if len(l.keys) == 0 {
		return math.MaxInt64
	}
	if l.due == 0 {
		l.due = math.MaxInt64
		// unordered: the minimum is the same in any order
		for _, s := range l.keys {
			l.due = min(l.due, s.until)
		}
	}
	return l.due
}

// Take returns the lines that are due, in the order of keys. It removes keys without events in
// their period.
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

// Rest returns the lines of all events that no line contains yet. Call it at the end of a program.
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
