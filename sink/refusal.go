package sink

import (
	"fmt"
	"strings"
	"time"

	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/seqset"
)

// Way is a way to continue a sink whose queue and target contradict each other. A user chooses it;
// the sink never guesses.
type Way string

const (
	// FromTarget: the target is right. Messages that the target has are acked; all others are
	// written.
	FromTarget Way = "target"
	// FromQueue: the queue is right. Every waiting message is written, even if the target has it.
	FromQueue Way = "queue"
	// AcceptLoss: queue and target are accepted unchanged. Rows missing in the target stay missing.
	AcceptLoss Way = "accept-loss"
)

// Contradiction is how a queue and a target contradict each other.
type Contradiction string

const (
	QueueBehind  Contradiction = "queue_behind"  // the data directory is older than the target's progress, or a copy of the directory took over
	TargetBehind Contradiction = "target_behind" // the target lacks rows that it had
	TargetEmpty  Contradiction = "target_empty"  // the target has no progress, but rows were written before
)

// Refusal describes a contradiction of queue and target, and lists the ways to continue.
type Refusal struct {
	Kind Contradiction `json:"kind"`
	// TargetApplied and QueueApplied are the total numbers of messages written, according to the
	// target and to the data directory.
	TargetApplied uint64 `json:"target_applied"`
	QueueApplied  uint64 `json:"queue_applied"`
	// Missing is how many rows are missing in the target. Unseen is how many messages the target
	// has that the data directory does not know as written.
	Missing uint64 `json:"missing"`
	Unseen  uint64 `json:"unseen"`
	// Known is how many of the queue's waiting messages the target has, or counts as settled
	// without a row.
	Known uint64 `json:"known"`
	// Waiting is how many messages wait in the queue in total. Newer is how many of them were
	// published after the histories diverged.
	Waiting uint64   `json:"waiting"`
	Newer   uint64   `json:"newer"`
	Text    string   `json:"text"`
	Ways    []WayOut `json:"ways"`
}

// WayOut is one way to continue and its effect.
type WayOut struct {
	Way     Way    `json:"way"`
	Command string `json:"command"`
	Effect  string `json:"effect"`
	Doubled uint64 `json:"doubled"` // most messages whose rows are written a second time
	Skipped uint64 `json:"skipped"` // messages that are acked without being written
	Lost    uint64 `json:"lost"`    // messages whose rows stay missing
}

// Error returns the same text as String.
func (r *Refusal) Error() string { return r.String() }

// String describes the contradiction and the ways to continue.
func (r *Refusal) String() string {
	var b strings.Builder
	b.WriteString(r.Text)
	b.WriteString(" Ways on:")
	for i, w := range r.Ways {
		if i > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, " `%s`: %s", w.Command, w.Effect)
	}
	return b.String()
}

func (r *Refusal) allows(w Way) bool {
	for i := range r.Ways {
		if r.Ways[i].Way == w {
			return true
		}
	}
	return false
}

// compare checks whether queue and target contradict each other. It returns nil if they do not.
func (c Claim) compare(old *State, k known, here seqset.Set, h door.History) (*Refusal, error) {
	r := &Refusal{QueueApplied: c.Written.Applied}
	if old != nil {
		r.TargetApplied = old.applied()
	}
	switch {
	case old == nil && c.Written.Applied == 0:
		return nil, nil
	case old == nil:
		r.Kind, r.Missing = TargetEmpty, c.Written.Applied
	case !contains(h, old.position()), old.Queue == h.Queue && old.watermark() > h.Floor:
		r.Kind, r.Unseen = QueueBehind, r.TargetApplied-min(r.TargetApplied, c.Written.Applied)
		r.Missing = c.Written.Applied - min(r.TargetApplied, c.Written.Applied)
	case r.TargetApplied < c.Written.Applied:
		r.Kind, r.Missing = TargetBehind, c.Written.Applied-r.TargetApplied
	default:
		return nil, nil
	}
	if err := c.counts(r, k, here, h); err != nil {
		return nil, err
	}
	r.say(c, old)
	return r, nil
}

// contains reports whether a position belongs to this directory's history: the incarnation opened
// the directory, and the entry is not after the last one of that incarnation. An incarnation occurs
// twice if the queue left its shard and came back meanwhile.
func contains(h door.History, p Position) bool {
	for i, o := range h.Openings {
		if o.Incarnation != p.Incarnation {
			continue
		}
		if i+1 < len(h.Openings) && p.Entry < h.Openings[i+1].First || i+1 == len(h.Openings) && p.Entry <= h.Entry {
			return true
		}
	}
	return p == Position{}
}

func (c Claim) counts(r *Refusal, k known, here seqset.Set, h door.History) (err error) {
	if h.Next > h.Floor {
		if r.Waiting, err = c.count(seqset.Set{{First: h.Floor, Last: h.Next - 1}}); err != nil {
			return err
		}
	}
	if len(here) > 0 {
		if r.Known, err = c.count(here); err != nil {
			return err
		}
	}
	if r.Kind == QueueBehind {
		var parted seqset.Set
		from := h.Floor
		for _, x := range k.shared(h) {
			if x.First > from {
				parted.Add(from, x.First-1)
			}
			from = max(from, x.Last+1)
		}
		if from < h.Next {
			parted.Add(from, h.Next-1)
		}
		if len(parted) > 0 {
			r.Newer, err = c.count(parted)
			return err
		}
	}
	return nil
}

// say writes the texts of the contradiction and of the ways to continue.
func (r *Refusal) say(c Claim, old *State) {
	command := "surgetank sink resume " + c.Sink
	way := func(w Way, effect string, out WayOut) {
		out.Way, out.Effect = w, effect
		if out.Command = command + " --from " + string(w); w == AcceptLoss {
			out.Command = command + " --accept-loss"
		}
		r.Ways = append(r.Ways, out)
	}
	switch r.Kind {
	case QueueBehind:
		r.Text = fmt.Sprintf("The data directory is behind the target. It was restored from an older copy, or it is a copy that runs beside the original, or a copy of it runs. "+
			"The target has the rows of %s%s; this directory knows of %d. %s in the queue: the target has %d of them, and %d were published after the two histories parted.",
			messages(r.TargetApplied), lastCommit(old), r.QueueApplied, waiting(r.Waiting), r.Known, r.Newer)
		way(FromTarget, fmt.Sprintf("acks the %d waiting messages that the target has, and writes the other %d", r.Known, r.Waiting-min(r.Waiting, r.Known)), WayOut{Skipped: r.Known})
		way(FromQueue, fmt.Sprintf("writes all %d waiting messages; the rows of up to %d are written twice", r.Waiting, r.Known), WayOut{Doubled: r.Known})
	case TargetBehind:
		r.Text = fmt.Sprintf("The target went back in time. It was restored from an older copy, or a standby that lagged was promoted. "+
			"It has the rows of %s%s; the queue knows of %d, up to message %d%s. So the rows of %s are missing in the target, and the queue no longer has these messages. %s in the queue.",
			messages(r.TargetApplied), lastCommit(old), r.QueueApplied, c.Written.Last, when(" at ", c.Written.Time), messages(r.Missing), waiting(r.Waiting))
		way(AcceptLoss, fmt.Sprintf("goes on; the rows of %s stay missing", messages(r.Missing)), WayOut{Lost: r.Missing})
		way(FromQueue, fmt.Sprintf("writes all %d waiting messages, of which the target has %d; the rows of %s stay missing", r.Waiting, r.Known, messages(r.Missing)),
			WayOut{Lost: r.Missing, Doubled: r.Known})
	case TargetEmpty:
		r.Text = fmt.Sprintf("The target has no progress of this sink, but the queue knows that the rows of %s were written%s. "+
			"The table surgetank_progress was dropped or emptied, or this is another database. If the rows are gone, too, then those of %s are missing. %s in the queue.",
			messages(r.QueueApplied), when(", the last at ", c.Written.Time), messages(r.Missing), waiting(r.Waiting))
		effect := fmt.Sprintf("writes all %d waiting messages; rows that were committed just before the progress was lost are written twice", r.Waiting)
		way(FromQueue, effect, WayOut{Lost: r.Missing})
		way(AcceptLoss, "does the same: "+effect, WayOut{Lost: r.Missing})
	}
}

func messages(n uint64) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

func waiting(n uint64) string {
	if n == 1 {
		return "1 message waits"
	}
	return fmt.Sprintf("%d messages wait", n)
}

func when(before string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return before + t.UTC().Format(time.RFC3339)
}

func lastCommit(s *State) string {
	if s == nil {
		return ""
	}
	return when(", the last of them committed at ", s.Updated)
}
