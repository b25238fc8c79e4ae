package settings

import (
	"time"

	"github.com/surgetank/surgetank"
)

// Why is an explanation in the JSON of the HTTP interface. The command line prints it with --json.
type Why struct {
	Cause
	Behind *Cause `json:"behind,omitempty" doc:"With the verdict behind: why the first of them waits."`
	Drain  *Drain `json:"drain,omitempty" doc:"When the backlog will be done. Only for a queue's next message."`
	Groups []Top  `json:"groups,omitempty" doc:"The groups that lead by waiting, in_flight, rate or age: most waiting messages first. Only for a queue's next message."`
}

// Cause is why one message waits.
type Cause struct {
	Verdict string     `json:"verdict" doc:"A stable word for the reason."`
	Text    string     `json:"text" doc:"The reason as a sentence."`
	Until   *time.Time `json:"until,omitempty" doc:"When the reason ends, or can end, by itself."`
	ID      string     `json:"id,omitempty" doc:"The message; missing if the reason is about the queue as a whole."`
	Group   string     `json:"group,omitempty" doc:"The message's group."`
	Attempt int        `json:"attempt,omitempty" doc:"Attempts that ended without an ack."`
	Failure string     `json:"failure,omitempty" doc:"Why the message came back last."`
	NextTry *time.Time `json:"next_try,omitempty" doc:"Of a message that backs off."`
	Ahead   int64      `json:"ahead,omitempty" doc:"How many messages of its group come first. The count ends at 100,000."`
	Turn    int64      `json:"turn,omitempty" doc:"With the verdict turn: about how many deliveries of others come first."`
	Leases  []Holder   `json:"leases,omitempty" doc:"Leases that block, oldest first, at most 8."`
}

// Holder is a lease and the consumer that has it.
type Holder struct {
	ID       string     `json:"id"`
	Consumer uint64     `json:"consumer"`
	Name     string     `json:"name,omitempty"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until,omitempty" doc:"Missing: until the consumer settles the message or goes away."`
}

// Drain is an estimate of the time until a backlog is done.
type Drain struct {
	Backlog int64  `json:"backlog" doc:"Messages that wait or are in flight, without delayed ones."`
	Low     string `json:"low,omitempty" schema:"Duration" doc:"The shorter estimate; missing: there is none."`
	High    string `json:"high,omitempty" schema:"Duration" doc:"The longer estimate; missing: there is none."`
	By      string `json:"by,omitempty" enum:"rates,level.rate,group,group.rate" doc:"What decides."`
	Text    string `json:"text" doc:"The estimate as a sentence, or why there is none."`
}

// Top has the figures of one group.
type Top struct {
	Group    string  `json:"group"`
	Waiting  int64   `json:"waiting" doc:"Includes delayed messages."`
	InFlight int64   `json:"in_flight"`
	Rate     float64 `json:"rate" doc:"Deliveries a second, estimated over about two minutes."`
	Age      string  `json:"age" schema:"Duration" doc:"How long its first message has waited."`
}

// QueueRates are averages of messages a second.
type QueueRates struct {
	Minute     float64 `json:"minute"`
	TenMinutes float64 `json:"ten_minutes"`
}

// ShowWhy returns the JSON form of an explanation.
func ShowWhy(e *surgetank.Explanation) Why {
	w := Why{Cause: showCause(e)}
	if e.Behind != nil {
		c := showCause(e.Behind)
		w.Behind = &c
	}
	if d := &e.Drain; d.Text != "" {
		w.Drain = &Drain{Backlog: d.Backlog, Low: showSpan(d.Low), High: showSpan(d.High), By: d.By, Text: d.Text}
	}
	for _, g := range e.Groups {
		w.Groups = append(w.Groups, Top{Group: g.Group, Waiting: g.Waiting, InFlight: g.InFlight, Rate: g.Rate, Age: FormatDuration(g.Age)})
	}
	return w
}

func showCause(e *surgetank.Explanation) Cause {
	c := Cause{Verdict: e.Verdict, Text: e.Text, Until: pointTo(e.Until), Group: e.Group, Attempt: e.Attempt, Failure: e.Failure, NextTry: pointTo(e.NextTry),
		Ahead: e.Ahead, Turn: e.Turn}
	if e.ID != (surgetank.MessageID{}) {
		c.ID = e.ID.String()
	}
	for _, h := range e.Leases {
		c.Leases = append(c.Leases, Holder{ID: h.ID.String(), Consumer: h.Consumer, Name: h.Name, Since: h.Since, Until: pointTo(h.Until)})
	}
	return c
}

// Explanation converts the answer of a server back. Its errors have CodeInternal.
func (w *Why) Explanation() (surgetank.Explanation, error) {
	r := whyReader{}
	e := r.cause(&w.Cause)
	if w.Behind != nil {
		b := r.cause(w.Behind)
		e.Behind = &b
	}
	if d := w.Drain; d != nil {
		e.Drain = surgetank.Drain{Backlog: d.Backlog, Low: r.span(d.Low), High: r.span(d.High), By: d.By, Text: d.Text}
	}
	for _, g := range w.Groups {
		e.Groups = append(e.Groups, surgetank.GroupFigures{Group: g.Group, Waiting: g.Waiting, InFlight: g.InFlight, Rate: g.Rate, Age: r.span(g.Age)})
	}
	if r.err != nil {
		return surgetank.Explanation{}, surgetank.Errorf(surgetank.CodeInternal, "the server's explanation could not be understood: %w; does the server have another version?", r.err)
	}
	return e, nil
}

// whyReader parses the values of an explanation and keeps the first error.
type whyReader struct{ err error }

func (r *whyReader) cause(c *Cause) surgetank.Explanation {
	e := surgetank.Explanation{Verdict: c.Verdict, Text: c.Text, Until: valueOf(c.Until), ID: r.id(c.ID), Group: c.Group, Attempt: c.Attempt, Failure: c.Failure,
		NextTry: valueOf(c.NextTry), Ahead: c.Ahead, Turn: c.Turn}
	for _, h := range c.Leases {
		e.Leases = append(e.Leases, surgetank.LeaseHolder{ID: r.id(h.ID), Consumer: h.Consumer, Name: h.Name, Since: h.Since, Until: valueOf(h.Until)})
	}
	return e
}

func (r *whyReader) id(text string) (id surgetank.MessageID) {
	if text == "" {
		return id
	}
	id, err := surgetank.ParseMessageID(text)
	r.keep(err)
	return id
}

func (r *whyReader) span(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	r.keep(err)
	return d
}

func (r *whyReader) keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

func showSpan(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return FormatDuration(d)
}

// pointTo returns nil for the zero time.
func pointTo(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func valueOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
