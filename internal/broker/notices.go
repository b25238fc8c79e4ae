package broker

import (
	"strings"

	"github.com/surgetank/surgetank/internal/digest"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/queue"
)

// noticeTexts are log texts. Each says what happened, and what the operator can do.
var noticeTexts = map[queue.What]string{
	queue.Circled:   "messages were dropped because queues dead-letter to each other in a circle; change ttl, overflow or dead_letter of one of them",
	queue.Parked:    "messages were given up and are parked in a dead-letter queue; look at them, repair the cause, and redrive them",
	queue.LeaseLost: "leases ended without an ack, and their messages are tried again; consumers hang or need longer than the queue's lease: look at them, or raise lease",
	queue.Refused:   "publishes were refused because a queue is at its limit; consume faster, or raise max_messages or max_bytes",
}

// noteAll counts a turn's notices. The first notice of each queue and kind is written to the
// server's log at once. Later notices are summed up in at most one line a minute.
func (b *core) noteAll(list []queue.Notice, now int64) {
	if len(list) == 0 {
		return
	}
	for i := range list {
		n := &list[i]
		if n.What == queue.Parked && passesOn(n) {
			continue
		}
		b.digest.Note(digest.Key{Kind: string(n.What), Queue: n.Queue, To: n.To}, n.Messages, n.Reason, now)
	}
	b.say(b.digest.Take(now))
}

// passesOn reports whether a dead-letter queue only passes messages on. A door has a separate
// virtual host for such queues. Users can only name dead-letter queues of the same virtual host.
func passesOn(n *queue.Notice) bool {
	from, _ := fullname.Split(n.Queue)
	to, _ := fullname.Split(n.To)
	return n.To != "" && from != to
}

// say writes lines to the server's log.
func (b *core) say(lines []digest.Line) {
	for i := range lines {
		l := &lines[i]
		what := queue.What(l.Kind)
		if l.Queue == "" {
			b.logger.Warn(noticeTexts[what], "queue", "several others", "messages", l.Count, "look", "surgetank queue ls")
			continue
		}
		vhost, name := fullname.Split(l.Queue)
		attrs := []any{"vhost", vhost, "queue", name}
		look := command("show", vhost, name)
		if l.To != "" {
			_, to := fullname.Split(l.To)
			attrs = append(attrs, "next", to)
			if what == queue.Parked {
				look = command("peek", vhost, to)
			}
		}
		attrs = append(attrs, "messages", l.Count)
		if l.Reason != "" {
			attrs = append(attrs, "last_reason", l.Reason)
		}
		attrs = append(attrs, "look", look)
		if what == queue.Parked {
			_, to := fullname.Split(l.To)
			attrs = append(attrs, "redrive", command("redrive", vhost, to))
		}
		b.logger.Warn(noticeTexts[what], attrs...)
	}
}

// sayRest logs the sums that were not logged yet. It is called when the broker stops.
func (b *core) sayRest() { b.say(b.digest.Rest()) }

// command returns a shell command about a queue, for users to copy.
func command(verb, vhost, name string) string {
	c := "surgetank queue " + verb + " " + word(name)
	if vhost != fullname.DefaultVhost {
		c += " --vhost " + word(vhost)
	}
	return c
}

// word quotes a name for a shell if necessary.
func word(s string) string {
	if s != "" && !strings.HasPrefix(s, "-") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@%+=,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
