package queue

import (
	"fmt"
	"math"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/settings"
)

// drain estimates the time until the backlog is done. The estimate is the largest of these terms,
// once with the rates of the last minute and once with the rates of the last ten minutes.
//
//	term         | time
//	-------------+---------------------------------------------------------------------------------
//	rates        | backlog ÷ (out − in)
//	level.rate   | backlog ÷ level.rate
//	group        | the largest group's waiting messages × mean lease time ÷ its limit in flight
//	group.rate   | the largest group's waiting messages ÷ group.rate
//
// Here the backlog is all messages that wait or are in flight, except delayed messages and messages
// that back off.
func (q *Queue) drain(largest *surgetank.GroupFigures) surgetank.Drain {
	d := surgetank.Drain{Backlog: q.waiting - q.backsN + q.leased}
	minute, ten := q.averagesNow()
	switch v := q.urgent(); {
	case d.Backlog == 0:
		d.Text = "There is nothing to drain."
	case v == paused:
		d.Text = "No estimate while the queue is paused."
	case v != mayGo:
		d.Text = "No estimate. " + tellings[v].say(&why{q: q, v: v})
	case minute.out <= minute.in:
		d.Text = fmt.Sprintf("Not at present rates: %s come, %s go.", perSecond(minute.in), perSecond(minute.out))
	default:
		q.estimate(&d, minute, ten, largest)
	}
	return d
}

func (q *Queue) estimate(d *surgetank.Drain, minute, ten averages, largest *surgetank.GroupFigures) {
	floor, by, why := 0.0, "rates", fmt.Sprintf("%s come and %s go", perSecond(minute.in), perSecond(minute.out))
	raise := func(seconds float64, term, text string) {
		if seconds > floor {
			floor, by, why = seconds, term, text
		}
	}
	backlog := float64(d.Backlog)
	fast := backlog / (minute.out - minute.in)
	raise(fast, by, why)
	if r := float64(q.config.Level.Rate); r > 0 {
		raise(backlog/r, "level.rate", fmt.Sprintf("level.rate allows %s", perSecond(r)))
	}
	if largest != nil {
		n := float64(largest.Waiting)
		if limit := q.config.Group.MaxInFlight; limit > 0 {
			raise(n*q.meanLease()/float64(limit), "group", fmt.Sprintf("group %q has %s, and each is in flight for %s", largest.Group, messages(largest.Waiting), short(q.meanLease())))
		}
		if r := float64(q.config.Group.Rate); r > 0 {
			raise(n/r, "group.rate", fmt.Sprintf("group %q has %s, and group.rate allows %s", largest.Group, messages(largest.Waiting), perSecond(r)))
		}
	}
	low, high := floor, floor
	known := ten.out > ten.in
	if known {
		slow := backlog / (ten.out - ten.in)
		if terms := floor > fast; terms {
			high = max(floor, slow)
		} else {
			low, high = min(fast, slow), max(fast, slow)
		}
	}
	d.By, d.Low, d.High = by, lasting(low), lasting(high)
	switch {
	case !known:
		d.High = 0
		d.Text = fmt.Sprintf("About %s or more: %s. In the last 10 minutes more came than went.", short(low), why)
	case short(low) == short(high):
		d.Text = fmt.Sprintf("About %s: %s.", short(low), why)
	default:
		d.Text = fmt.Sprintf("%s to %s: %s.", short(low), short(high), why)
	}
}

// lasting returns a time to drain, of at most MaxDuration.
func lasting(seconds float64) time.Duration {
	return time.Duration(min(seconds*1e9, float64(surgetank.MaxDuration))).Round(time.Millisecond)
}

// short formats seconds as a duration with about two digits.
func short(seconds float64) string {
	switch d := lasting(seconds); {
	case d < time.Second:
		return settings.FormatDuration(d.Round(10 * time.Millisecond))
	case d < time.Minute:
		return settings.FormatDuration(d.Round(time.Second))
	case d < time.Hour:
		return settings.FormatDuration(d.Round(10 * time.Second))
	default:
		return settings.FormatDuration(d.Round(10 * time.Minute))
	}
}

// perSecond returns a rate as text.
func perSecond(r float64) string {
	switch {
	case r >= 100:
		return fmt.Sprintf("%.0f/s", math.Round(r))
	case r < 0.001:
		return "0/s"
	}
	return fmt.Sprintf("%.2g/s", r)
}
