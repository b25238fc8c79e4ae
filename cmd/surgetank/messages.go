package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/msgopt"
)

// messageShape is a message in JSON output: one object a line.
type messageShape struct {
	ID      string          `json:"id"`
	Time    time.Time       `json:"time"`
	State   surgetank.State `json:"state,omitempty"`
	Damage  string          `json:"damage,omitempty"`
	Due     *time.Time      `json:"due,omitempty"`
	Failure string          `json:"failure,omitempty"`
	Waiting string          `json:"waiting,omitempty"`
	Attempt int             `json:"attempt,omitempty"`
	msgopt.Shape
	Deaths []surgetank.Death `json:"deaths,omitempty"`
	// A message has one of the three: a JSON body unchanged, other text as a string, any other body
	// in base64.
	Body       json.RawMessage `json:"body,omitempty"`
	BodyText   *string         `json:"body_text,omitempty"`
	BodyBase64 []byte          `json:"body_base64,omitempty"`
}

func shapeMessage(d surgetank.Delivery) messageShape {
	m := messageShape{
		ID: d.ID.String(), Time: d.Time, State: d.State, Damage: d.Damage, Failure: d.Failure, Waiting: d.Waiting, Attempt: d.Attempt, Shape: msgopt.Show(&d.Message), Deaths: d.Deaths,
	}
	m.Opaque = nil // only programs use the opaque part
	if !d.Due.IsZero() {
		m.Due = &d.Due
	}
	switch {
	case d.Damage != "": // the body cannot be shown
	case json.Valid(d.Body):
		m.Body = d.Body
	case utf8.Valid(d.Body):
		text := string(d.Body)
		m.BodyText = &text
	default:
		m.BodyBase64 = d.Body
	}
	return m
}

// looksLike returns the value of a text on the command line: a boolean, a number, or the text
// itself.
func looksLike(text string) any {
	if b, err := strconv.ParseBool(text); err == nil && (text == "true" || text == "false") {
		return b
	}
	if json.Valid([]byte(text)) && text[0] != '"' && text[0] != '{' && text[0] != '[' && text != "null" {
		return json.Number(text)
	}
	return text
}

type queuePeekCmd struct {
	queueArg
	Max   int    `short:"n" default:"10" help:"Messages at most. Default ${default}."`
	State string `enum:",ready,blocked,delayed,leased,damaged" default:"" placeholder:"STATE" help:"Only messages that are ready, blocked, delayed, leased or damaged."`
	ID    string `name:"id" placeholder:"ID" help:"Only the message with this id."`
	Body  bool   `help:"Print bodies only, one a line."`
}

func (c *queuePeekCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		o := surgetank.PeekOptions{Max: c.Max, State: surgetank.State(c.State)}
		if c.ID != "" {
			if o.ID, err = surgetank.ParseMessageID(c.ID); err != nil {
				return err
			}
		}
		messages, err := peekAll(s.ctx, b, name, o)
		if err != nil {
			return err
		}
		if c.ID != "" && len(messages) == 0 {
			return surgetank.Errorf(surgetank.CodeNotFound, "the queue %s has no message %s", c.Queue, c.ID)
		}
		switch {
		case c.JSON:
			for _, d := range messages {
				if err := writeJSON(s.stdout, shapeMessage(d)); err != nil {
					return err
				}
			}
			return nil
		case c.Body:
			return writeBodies(s.stdout, messages)
		}
		return table(s.stdout, "ID STATE ATTEMPT AGE GROUP BYTES BODY", func(row func(...any)) {
			for _, d := range messages {
				body := excerpt(d.Body, 60)
				if d.Damage != "" {
					body = printable(d.Damage)
				}
				row(d.ID, d.State, d.Attempt, age(time.Since(d.Time)), printable(d.Group), len(d.Body), body)
				if what, when, why := pending(&d, time.Now()); what != "" {
					row("", what, "", when, "", "", printable(why))
				}
				for _, death := range d.Deaths {
					row("", "died", death.Attempts, age(time.Since(death.Time)), "", "", printable(death.Queue+": "+death.Reason+" "+death.Detail))
				}
			}
		})
	})
}

// pending describes why an unsettled message waits: the state, the time until the wait ends, and
// the reason.
func pending(d *surgetank.Delivery, now time.Time) (what, when, why string) {
	if !d.Due.IsZero() {
		when = "in " + age(d.Due.Sub(now))
	}
	switch {
	case d.State == surgetank.StateDelayed && d.Redelivered:
		return "next try", when, cmp.Or(d.Failure, "no reason was given")
	case d.State == surgetank.StateDelayed:
		return "due", when, "its publisher delayed it"
	case (d.State == surgetank.StateBlocked || d.State == surgetank.StateReady) && d.Waiting != "":
		return "waits", "", d.Waiting
	case d.Failure != "":
		return "failed", "", d.Failure
	}
	return "", "", ""
}

// peekAll peeks in parts until it has the requested number of messages, or none is left. A server
// returns a part of a queue per request.
func peekAll(ctx context.Context, b surgetank.Broker, queue string, o surgetank.PeekOptions) (all []surgetank.Delivery, err error) {
	for most := o.Max; ; {
		part, err := b.Peek(ctx, queue, o)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
		if len(part) == 0 || len(all) >= most || o.ID != (surgetank.MessageID{}) {
			return all, nil
		}
		o.After, o.Max = part[len(part)-1].ID.Seq, most-len(all)
	}
}

// excerpt returns the beginning of a body in a form that a terminal can show.
func excerpt(body []byte, width int) string {
	cut := body[:min(len(body), width)]
	for len(cut) > 0 && !utf8.Valid(cut) && len(body) > len(cut) && len(cut) > width-utf8.UTFMax {
		cut = cut[:len(cut)-1]
	}
	if !utf8.Valid(cut) {
		return fmt.Sprintf("%x…", cut[:min(len(cut), width/2)])
	}
	text := printable(string(cut))
	if len(cut) < len(body) {
		text += "…"
	}
	return text
}

// writeBodies writes bodies unchanged, each followed by a line end.
func writeBodies(w io.Writer, messages []surgetank.Delivery) error {
	for _, d := range messages {
		if _, err := w.Write(d.Body); err != nil {
			return err
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
	}
	return nil
}

type queueRedriveCmd struct {
	queueArg
	To     string `placeholder:"QUEUE" help:"Move all to this queue; without it each message goes back to the queue where it died."`
	Max    int64  `placeholder:"N" help:"Messages at most. Default all that wait now."`
	Rate   string `placeholder:"RATE" help:"Messages per time, such as 100/s. Default no limit."`
	Reason string `enum:",rejected,attempts,expired,overflow" default:"" placeholder:"REASON" help:"Only messages that died for this reason: rejected, attempts, expired or overflow."`
	From   string `placeholder:"QUEUE" help:"Only messages that died in this queue."`
	DryRun bool   `help:"Count only."`
}

// redriveShape is the JSON output of redrive.
type redriveShape struct {
	Queue   string `json:"queue"`
	Matched int64  `json:"matched"`
	Moved   int64  `json:"moved"`
	Skipped int64  `json:"skipped"`
	Full    int64  `json:"full,omitempty"`
	DryRun  bool   `json:"dry_run,omitempty"`
}

func (c *queueRedriveCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		rate, err := parseRate(c.Rate)
		if err != nil {
			return err
		}
		o := surgetank.RedriveOptions{Max: c.Max, Rate: rate, Reason: c.Reason, DryRun: c.DryRun}
		for _, q := range []struct {
			given string
			into  *string
		}{{c.To, &o.To}, {c.From, &o.Queue}} {
			if q.given != "" {
				if *q.into, err = c.full(q.given); err != nil {
					return err
				}
			}
		}
		r, err := b.Redrive(s.ctx, name, o)
		shape := redriveShape{c.Queue, r.Matched, r.Moved, r.Skipped, r.Full, c.DryRun}
		if err != nil {
			return fmt.Errorf("%w (moved %d so far)", err, r.Moved)
		}
		err = c.print(s.stdout, shape, func(w io.Writer) error {
			if c.DryRun {
				_, err := fmt.Fprintf(w, "would move %s\n", plural(r.Matched, "message"))
				return err
			}
			_, err := fmt.Fprintf(w, "moved %s of %s, skipped %s\n", count(r.Moved), plural(r.Matched, "message"), count(r.Skipped))
			return err
		})
		if err == nil && r.Full > 0 {
			err = surgetank.Errorf(surgetank.CodeFull, "%s stayed, because the queue where they belong is at its limits; consume from that queue, or raise its limits, and redrive again", plural(r.Full, "message"))
		}
		return err
	})
}
