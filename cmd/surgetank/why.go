package main

import (
	"fmt"
	"io"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

type queueWhyCmd struct {
	queueArg
	Group string `placeholder:"GROUP" help:"Explain the first message of this group. Default: the queue's next message."`
	ID    string `name:"id" placeholder:"ID" help:"Explain this message."`
}

func (c *queueWhyCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		o := surgetank.ExplainOptions{Group: c.Group}
		if c.ID != "" {
			if o.ID, err = surgetank.ParseMessageID(c.ID); err != nil {
				return err
			}
		}
		e, err := b.Explain(s.ctx, name, o)
		if err != nil {
			return err
		}
		why := settings.ShowWhy(&e)
		return c.print(s.stdout, why, func(w io.Writer) error { return showWhy(w, &why, time.Now()) })
	})
}

// showWhy writes an explanation for people.
func showWhy(w io.Writer, why *settings.Why, now time.Time) error {
	fmt.Fprintf(w, "%s\n\n", printable(why.Text))
	err := table(w, "WHAT VALUE", func(row func(...any)) {
		row("verdict", why.Verdict)
		cause(row, &why.Cause)
		if why.Behind != nil {
			row("first of its group", why.Behind.Verdict)
			cause(row, why.Behind)
		}
		switch {
		case why.NextTry != nil:
			row("next try", "in "+age(why.NextTry.Sub(now)))
		case why.Until != nil:
			row("can change", "in "+age(why.Until.Sub(now)))
		}
		if why.Drain != nil {
			row("time to drain", printable(why.Drain.Text))
		}
	})
	if err != nil {
		return err
	}
	if len(why.Leases) > 0 {
		fmt.Fprintln(w)
		err = table(w, "LEASED CONSUMER NAME SINCE UNTIL", func(row func(...any)) {
			for _, h := range why.Leases {
				until := "settled"
				if h.Until != nil {
					until = "in " + age(h.Until.Sub(now))
				}
				row(h.ID, h.Consumer, printable(h.Name), age(now.Sub(h.Since))+" ago", until)
			}
		})
		if err != nil {
			return err
		}
	}
	return leadingGroups(w, why.Groups, 10)
}

// cause writes the rows of one cause.
func cause(row func(...any), c *settings.Cause) {
	if c.ID != "" {
		row("message", c.ID)
	}
	if c.Group != "" {
		row("group", printable(c.Group))
	}
	if c.Attempt > 0 {
		row("attempts", c.Attempt)
	}
	if c.Failure != "" {
		row("last failure", printable(c.Failure))
	}
	if c.Ahead > 0 {
		row("ahead in its group", count(c.Ahead))
	}
	if c.Turn > 0 {
		row("deliveries before it", "about "+count(c.Turn))
	}
}

// leadingGroups writes the first groups of a list after an empty line.
func leadingGroups(w io.Writer, groups []settings.Top, most int) error {
	if len(groups) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	err := table(w, "GROUP WAITING IN-FLIGHT RATE AGE", func(row func(...any)) {
		for _, g := range groups[:min(len(groups), most)] {
			waited, _ := time.ParseDuration(g.Age) // the server wrote it
			row(printable(g.Group), count(g.Waiting), count(g.InFlight), rate(g.Rate), age(waited))
		}
	})
	if more := len(groups) - most; err == nil && more > 0 {
		_, err = fmt.Fprintf(w, "and %s; --json of queue why has all that lead\n", plural(int64(more), "group"))
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	return err
}

// rate writes messages a second.
func rate(r float64) string {
	switch {
	case r >= 100:
		return count(int64(r+0.5)) + "/s"
	case r < 0.005:
		return "0/s"
	}
	return fmt.Sprintf("%.2g/s", r)
}
