package main

import (
	"fmt"
	"io"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

type queueBreakerCmd struct {
	queueArg
	Op     string `arg:"" enum:"open,close" help:"open: stop deliveries, and count no attempts. close: let the load grow from a low level. A restart forgets both; queue pause is kept."`
	Reason string `help:"Why. It is shown by queue show and queue level."`
}

// breakerShape is the JSON output of queue breaker.
type breakerShape struct {
	Queue string `json:"queue"`
	Open  bool   `json:"open"`
}

func (c *queueBreakerCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		set, word := b.CloseBreaker, "closed"
		if c.Op == "open" {
			set, word = b.OpenBreaker, "open"
		}
		if err := set(s.ctx, name, surgetank.BreakerOptions{Reason: c.Reason}); err != nil {
			return err
		}
		return c.print(s.stdout, breakerShape{c.Queue, c.Op == "open"}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "the breaker of queue %s is %s\n", printable(c.Queue), word)
			return err
		})
	})
}

type queueLevelCmd struct{ queueArg }

func (c *queueLevelCmd) Run(s *session) error {
	return c.with(func(b surgetank.Broker) error {
		name, err := c.full(c.Queue)
		if err != nil {
			return err
		}
		h, err := b.LevelHistory(s.ctx, name)
		if err != nil {
			return err
		}
		return c.print(s.stdout, settings.ShowLevelHistory(h), func(w io.Writer) error {
			err := table(w, "CHANGED LIMIT REASON RATIO OF", func(row func(...any)) {
				for _, x := range h.Changes {
					ratio := "-"
					if x.Ratio > 0 {
						ratio = fmt.Sprintf("%.2f", x.Ratio)
					}
					of := "queue"
					if x.Sink != "" {
						of = "sink " + printable(x.Sink)
					}
					row(x.Time.Format(time.RFC3339), fmt.Sprintf("%d to %d", x.From, x.To), x.Reason, ratio, of)
				}
			})
			if err != nil || len(h.Outages) == 0 {
				return err
			}
			fmt.Fprintln(w)
			return table(w, "DOWN UP CAUSE PROBES RETURNED OPENED CLOSED", func(row func(...any)) {
				for _, x := range h.Outages {
					up := "-"
					if !x.End.IsZero() {
						up = x.End.Format(time.RFC3339)
					}
					row(x.Start.Format(time.RFC3339), up, x.Cause, x.Probes, x.Refunds, byWhom(x.OpenedBy, x.OpenedWhy), byWhom(x.ClosedBy, x.ClosedWhy))
				}
			})
		})
	})
}

// byWhom names the user of a command and the reason; "-" without a command.
func byWhom(by, why string) string {
	switch {
	case by == "" && why == "":
		return "-"
	case why == "":
		return printable(by)
	case by == "":
		return printable(why)
	}
	return printable(by) + ": " + printable(why)
}

// showLevel prints the state of the adaptive limit and of the breaker.
func showLevel(w io.Writer, l *surgetank.LevelInfo) {
	if l == nil {
		return
	}
	if l.Limit > 0 {
		fmt.Fprintf(w, "level: limit %d, in force %d, in flight %d", l.Limit, l.InForce, l.InFlight)
		if l.Ratio > 0 {
			fmt.Fprintf(w, ", ratio %.2f", l.Ratio)
		}
		fmt.Fprintf(w, "; last change: %s, %s ago. %s\n", l.Reason, age(time.Since(l.Changed)), l.State)
	}
	if l.Breaker == "" || l.Breaker == "closed" && l.Openings == 0 {
		return
	}
	fmt.Fprintf(w, "breaker: %s", l.Breaker)
	if !l.BreakerSince.IsZero() {
		fmt.Fprintf(w, " for %s", age(time.Since(l.BreakerSince)))
	}
	if l.BreakerCause != "" {
		fmt.Fprintf(w, ", cause %s", l.BreakerCause)
	}
	if by := byWhom(l.BreakerBy, l.BreakerWhy); by != "-" {
		fmt.Fprintf(w, " (%s)", by)
	}
	if !l.NextProbe.IsZero() {
		fmt.Fprintf(w, ", next probe in %s", age(time.Until(l.NextProbe)))
	}
	fmt.Fprintf(w, "; outages %d, probes %d, attempts returned %d\n", l.Openings, l.Probes, l.Refunds)
}
