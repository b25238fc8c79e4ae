package judge

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The kinds of findings.
const (
	Lost       = "lost"        // a confirmed message is nowhere
	Doubled    = "doubled"     // a message was written twice
	Unexpected = "unexpected"  // a message was written, but never published
	Misplaced  = "misplaced"   // a row has a wrong value, or shows an older message instead of a newer one
	Parked     = "wrong park"  // a good message was parked, or a bad one was not
	Disorder   = "order"       // a group's messages were written out of order
	Stuck      = "stuck"       // messages wait, although the sink has not refused its target
	FalseAlarm = "false alarm" // a sink refused its target without a cause
	Words      = "words"       // a sink's error does not name the number of missing messages
)

// Finding is one broken promise.
type Finding struct {
	Kind string
	Text string
}

func (f Finding) String() string { return f.Kind + ": " + f.Text }

// Report is the result of judging a history.
type Report struct {
	Findings  []Finding
	Confirmed int
	Applied   int // messages written at least once
	Waiting   int
	Parked    int
	Refused   bool
	// Missing are messages that a data directory counts as written and the target does not have.
	// MissingLeast is smaller if a copy was made while messages were in flight, or if newer rows
	// may have replaced older ones.
	Missing      []int
	MissingLeast int
	// Again are messages that are written and still wait. The way "queue" would write them twice.
	Again []int
}

type checker struct {
	h       *History
	r       Report
	applied map[int]int
	newest  map[string]int // newest message in the table, by key
}

// Check judges a history.
func Check(h *History) Report {
	c := &checker{h: h, applied: map[int]int{}, newest: map[string]int{}}
	for _, n := range h.Applied {
		c.applied[n]++
	}
	for _, r := range h.Rows {
		c.newest[r.Key] = max(c.newest[r.Key], r.N)
	}
	c.writes()
	c.queues()
	c.losses()
	c.rows()
	if h.Causes == 0 && !h.Unordered {
		c.order()
	}
	c.refusals()
	c.r.Applied = len(c.applied)
	return c.r
}

func (c *checker) find(kind, format string, args ...any) {
	c.r.Findings = append(c.r.Findings, Finding{kind, fmt.Sprintf(format, args...)})
}

// findAll reports messages with the same fault in one finding.
func (c *checker) findAll(kind, what string, list []int) {
	if len(list) == 0 {
		return
	}
	slices.Sort(list)
	c.find(kind, "%s: %s", what, brief(list))
}

// brief lists the first messages of a list.
func brief(list []int) string {
	const most = 8
	text := strings.Trim(fmt.Sprint(list[:min(most, len(list))]), "[]")
	if len(list) > most {
		text += " …"
	}
	return fmt.Sprintf("%d messages (%s)", len(list), text)
}

// writes checks how often each message was written.
func (c *checker) writes() {
	var strange, twice, bad, once []int
	for n, count := range c.applied {
		m := c.h.Messages[n]
		switch {
		case m == nil:
			strange = append(strange, n)
		case m.Poison:
			bad = append(bad, n)
		case c.h.Twice[n]:
			if count > 2 {
				twice = append(twice, n)
			} else if count < 2 && c.h.Mode != Update { // of one batch only the newest row of a key is written
				once = append(once, n)
			}
		case count > 1:
			twice = append(twice, n)
		}
	}
	c.findAll(Unexpected, "written, and never published", strange)
	c.findAll(Doubled, "written more than once", twice)
	c.findAll(Words, "said to be written twice, and written once", once)
	c.findAll(Parked, "written, although the table must not take it", bad)
}

// queues checks the messages that still wait or are parked on the servers.
func (c *checker) queues() {
	again := map[int]bool{}
	for _, s := range c.h.Servers {
		c.r.Waiting += len(s.Waiting)
		c.r.Parked += len(s.Parked)
		var good, both []int
		for n, reason := range s.Parked {
			m := c.h.Messages[n]
			switch {
			case m == nil:
				c.find(Unexpected, "%s parked message %d, which was never published", s.Name, n)
			case !m.Poison:
				good = append(good, n)
				if len(good) == 1 {
					c.find(Parked, "the first of the good messages that %s parked is %d: %s", s.Name, n, reason)
				}
			}
			if c.applied[n] > 0 {
				both = append(both, n)
			}
		}
		c.findAll(Parked, s.Name+" parked good messages", good)
		c.findAll(Doubled, s.Name+" parked messages that are written", both)
		for n := range s.Waiting {
			if c.applied[n] > 0 {
				again[n] = true
			}
		}
		if len(s.Waiting) > 0 && !s.stopped() {
			c.find(Stuck, "sink of %s is %s (%s) with %s waiting", s.Name, s.State, s.Reason, brief(slices.Sorted(maps.Keys(s.Waiting))))
		}
	}
	c.r.Again = slices.Sorted(maps.Keys(again))
}

// losses finds confirmed messages that are nowhere. Such a message is lost, unless a sink has
// stopped for a cause that explains the loss.
func (c *checker) losses() {
	refused := false
	for _, s := range c.h.Servers {
		refused = refused || s.stopped()
	}
	c.r.Refused = refused
	for _, n := range slices.Sorted(maps.Keys(c.h.Messages)) {
		m := c.h.Messages[n]
		sure, maybe, kept := false, false, c.applied[n] > 0
		for _, s := range c.h.Servers {
			sure = sure || s.Holds[n] == Sure
			maybe = maybe || s.Holds[n] == Maybe
			_, parked := s.Parked[n]
			kept = kept || parked || s.Waiting[n]
		}
		if sure {
			c.r.Confirmed++
		}
		if kept || !sure && !maybe || c.h.Forgiven[n] || m.Poison && !sure {
			continue
		}
		// Of one batch only the newest row of a key is written. So a newer message's row covers the
		// older message.
		covered := c.h.Mode == Update && c.newest[m.Key] > n
		if covered && !refused {
			continue
		}
		c.r.Missing = append(c.r.Missing, n)
		if sure && !covered {
			c.r.MissingLeast++
		}
	}
	if refused && c.h.Causes&(TargetBack|ProgressGone) != 0 {
		return
	}
	var lost []int
	for _, n := range c.r.Missing {
		for _, s := range c.h.Servers {
			if s.Holds[n] == Sure && !(c.h.Mode == Update && c.newest[c.h.Messages[n].Key] > n) {
				lost = append(lost, n)
				break
			}
		}
	}
	c.findAll(Lost, "confirmed, and neither written, parked nor waiting", lost)
}

// rows compares the table with the written messages.
func (c *checker) rows() {
	seen := map[int]int{}
	wrong := map[string][]int{}
	for _, r := range c.h.Rows {
		seen[r.N]++
		m := c.h.Messages[r.N]
		if m == nil || c.applied[r.N] == 0 {
			c.find(Unexpected, "the table has a row of message %d, which was never written", r.N)
			continue
		}
		for column, allowed := range m.Cells {
			if got := r.Cells[column]; !slices.Contains(allowed, got) {
				if wrong[column] = append(wrong[column], r.N); len(wrong[column]) == 1 {
					c.find(Misplaced, "column %s of message %d is %q, not one of %q", column, r.N, got, allowed)
				}
			}
		}
	}
	for column, list := range wrong {
		c.findAll(Misplaced, "column "+column+" is wrong", list)
	}
	if c.h.Mode == Update {
		c.keys()
		return
	}
	var gone, twice []int
	for n := range c.applied {
		if seen[n] == 0 && !c.h.Removed[n] && c.h.Messages[n] != nil {
			gone = append(gone, n)
		}
		if seen[n] > 1 && !c.h.Twice[n] {
			twice = append(twice, n)
		}
	}
	c.findAll(Lost, "noted as written, but without a row", gone)
	c.findAll(Doubled, "with more than one row", twice)
}

// keys checks in Update mode that each key shows its newest message, or no row if the user has
// deleted the row.
func (c *checker) keys() {
	want, deleted, count := map[string]int{}, map[string]int{}, map[string]int{}
	for n := range c.h.Twice { // the second write of an older message may replace a newer one
		deleted[c.h.Messages[n].Key] = math.MaxInt
	}
	for n := range c.h.Removed {
		if m := c.h.Messages[n]; m != nil {
			deleted[m.Key] = max(deleted[m.Key], n)
		}
	}
	for _, r := range c.h.Rows {
		if count[r.Key]++; count[r.Key] == 2 {
			c.find(Doubled, "key %s has more than one row", r.Key)
		}
	}
	for n := range c.applied {
		if m := c.h.Messages[n]; m != nil && n > deleted[m.Key] {
			want[m.Key] = max(want[m.Key], n)
		}
	}
	var older []string
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if n := c.newest[key]; n < want[key] {
			older = append(older, fmt.Sprintf("%s shows message %d and not %d", key, n, want[key]))
		}
	}
	if len(older) > 0 {
		c.find(Misplaced, "%d keys show an older message: %s", len(older), strings.Join(older[:min(3, len(older))], ", "))
	}
}

// order checks that each group's messages were written in order.
func (c *checker) order() {
	last := map[string]int{}
	for _, n := range c.h.Applied {
		m := c.h.Messages[n]
		if m == nil || m.Group == "" {
			continue
		}
		if n < last[m.Group] {
			c.find(Disorder, "group %s: message %d was written after message %d", m.Group, n, last[m.Group])
			return
		}
		last[m.Group] = n
	}
}

// refusals checks the reason that each stopped sink reports.
func (c *checker) refusals() {
	for _, s := range c.h.Servers {
		if !s.stopped() {
			continue
		}
		back := c.h.Causes & (TargetBack | ProgressGone)
		switch {
		case c.h.Causes == 0:
			c.find(FalseAlarm, "sink of %s is %s, and neither side was put back: %s", s.Name, s.State, s.Reason)
		case s.State == "fenced" && c.h.Causes&Copied == 0:
			c.find(FalseAlarm, "sink of %s is fenced, and no copy was at work: %s", s.Name, s.Reason)
		case c.h.Causes == TargetBack && len(c.r.Missing) == 0:
			c.find(FalseAlarm, "sink of %s is %s, and the target misses nothing: %s", s.Name, s.State, s.Reason)
		case s.Reason == "":
			c.find(Words, "sink of %s is %s without a reason", s.Name, s.State)
		case back != 0 && s.State != "fenced" && !c.entangled(): // a fenced sink compares only when it is resumed
			least, most := c.missingFor(s)
			if c.h.Causes&ProgressGone != 0 { // without progress, the sink must assume that every row is missing
				most = len(s.Holds)
			}
			if least > 0 && !named(s.Reason, least, most) {
				c.find(Words, "%d to %d messages are missing in the target, and the words of %s name another number: %s", least, most, s.Name, s.Reason)
			}
		}
		c.numbers(s)
	}
}

// entangled reports whether the target and the directory were both put back, or two directories
// wrote to a target that was put back. Then each side can lack messages that the other side never
// had. A sink can only report the difference of two counts, but it must still refuse the target.
func (c *checker) entangled() bool {
	return c.h.Causes&TargetBack != 0 && c.h.Causes&(DirectoryBack|Copied) != 0
}

// numbers compares the numbers of a refusal with the true ones.
func (c *checker) numbers(s *Server) {
	if s.Numbers == nil {
		return
	}
	has, poison := 0, 0
	for n := range s.Waiting {
		if c.applied[n] > 0 {
			has++
		} else if m := c.h.Messages[n]; m != nil && m.Poison {
			poison++ // the other directory may have parked the message
		}
	}
	least, most := c.missingFor(s)
	covered := c.h.Mode == Update // a row that was replaced in its own batch has no recorded write
	switch n := s.Numbers; {
	case n.Waiting != len(s.Waiting):
		c.find(Words, "%s says that %d messages wait, and %d do", s.Name, n.Waiting, len(s.Waiting))
	case c.h.Causes&ProgressGone != 0: // the sink cannot know what the target has
	case n.Known < has, n.Known > has+poison && !covered:
		c.find(Words, "%s says that the target has %d of the messages that wait, and it has %d (and %d can never be written)", s.Name, n.Known, has, poison)
	case !c.entangled() && (n.Missing < least || n.Missing > most):
		c.find(Words, "%s says that the rows of %d messages are missing, and those of %d to %d are", s.Name, n.Missing, least, most)
	}
}

var (
	number = regexp.MustCompile(`[0-9]+`)
	// moment matches a time. The digits of a time are not counts.
	moment = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|[+-][0-9:]+)?`)
)

// named reports whether a text contains a number in a range.
func named(words string, least, most int) bool {
	for _, text := range number.FindAllString(moment.ReplaceAllString(words, ""), -1) {
		if n, err := strconv.Atoi(text); err == nil && n >= least && n <= most {
			return true
		}
	}
	return false
}

// missingFor returns the least and the most messages that one server counts as written and the
// target does not have.
func (c *checker) missingFor(s *Server) (least, most int) {
	for n, presence := range s.Holds {
		m := c.h.Messages[n]
		_, parked := s.Parked[n]
		if presence == Absent || m == nil || m.Poison || parked || s.Waiting[n] || c.applied[n] > 0 || c.h.Forgiven[n] {
			continue
		}
		most++
		if presence == Sure && !(c.h.Mode == Update && c.newest[m.Key] > n) {
			least++
		}
	}
	return least, most
}
