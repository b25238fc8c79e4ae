package model

import (
	"time"

	"github.com/surgetank/surgetank"
)

// account is a queue's retry budget in thousandths of a retry. The zero value is an account before
// its first use.
type account struct {
	has        int64
	paid       int64 // every millisecond up to this time is paid
	start      int64 // start of the present 10 seconds
	now, early int64 // first attempts in the present 10 seconds, and in the 10 seconds before
}

func (q *Queue) budgetShare() int64 { return int64(q.Config.Retry.Budget*1000 + 0.5) }

// update pays into the account for the time that has passed.
func (q *Queue) update() *account {
	a, now := &q.budget, q.m.Now
	reserve := int64(q.m.RetryReserve) * 1000
	if a.paid == 0 {
		*a = account{has: reserve, paid: now, start: now}
	}
	if past := time.Duration(now - a.start); past >= 10*time.Second {
		a.early, a.now, a.start = a.now, 0, now
		if past >= 20*time.Second {
			a.early = 0
		}
	}
	for a.paid+int64(time.Millisecond) <= now && a.has < 1e9 {
		a.paid += int64(time.Millisecond)
		a.has++
	}
	a.paid = now - (now-a.paid)%int64(time.Millisecond)
	a.has = min(a.has, max(reserve, q.budgetShare()*max(a.now, a.early)))
	return a
}

// payIn pays into the account for a first attempt.
func (q *Queue) payIn() {
	if q.budgetShare() > 0 {
		a := q.update()
		a.now++
		a.has += q.budgetShare()
	}
}

// payRetry pays for a retry from the account. It returns false if the account is too low.
func (q *Queue) payRetry() bool {
	if q.budgetShare() == 0 {
		return true
	}
	a := q.update()
	if a.has < 1000 {
		return false
	}
	a.has -= 1000
	return true
}

// endBackOffs puts messages whose back-off is over into their lines, until the account cannot pay
// for the next retry.
func (q *Queue) endBackOffs() {
	for _, x := range q.at(func(x *Message) int64 {
		if x.backsOff {
			return x.notBefore
		}
		return 0
	}) {
		if x.attempts > 0 && x.state != surgetank.StateDamaged && !x.parking && !q.payRetry() {
			break
		}
		parks := x.parking
		x.parking = false
		if most := q.Config.Retry.MaxAttempts; parks && x.state != surgetank.StateDamaged && most > 0 && x.attempts >= most && q.sendToDeadLetter(x, surgetank.ReasonAttempts) {
			continue
		}
		if x.backsOff = false; x.state == surgetank.StateDelayed {
			q.place(x, 0)
		}
		q.m.mark(q)
	}
}
