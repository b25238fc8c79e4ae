package queue

// retry.budget keeps retries to a share of first attempts, so that a target that fails is not asked
// more often than before. The account is in thousandths of a retry, as in Finagle's RetryBudget
// (twitter.github.io/finagle/docs, com.twitter.finagle.service.RetryBudget):
//
//	first attempt   + budget · 1000
//	every second    + 1000, so that a quiet queue recovers
//	retry           − 1000
//	at most         Limits.RetryReserve retries, or those that 10 seconds of first attempts pay for
//
// A retry pays when its back-off ends. If the account is too low, the message continues to back
// off, and blocks its group if the group is strict. A message that has not failed yet, or that was
// redriven, pays nothing. After a restart, a message whose back-off is over does not wait for the
// account.
type budget struct {
	account int64 // thousandths of a retry
	paid    int64 // time up to which every second is paid; 0: the account was never used
	short   bool  // a message waits because the account is too low
	enough  bool  // first attempts have paid for this message

	since        int64 // start of the present window
	firsts, last int64 // first attempts in the present window and in the one before
}

const (
	budgetWindow = 10e9 // nanoseconds
	budgetFloor  = 1e6  // nanoseconds for one thousandth
	oneRetry     = 1000
)

// budgetShare returns how much a first attempt adds to the account; 0 if there is no budget.
func (q *Queue) budgetShare() int64 { return int64(q.config.Retry.Budget*oneRetry + 0.5) }

// pay pays into the account for the time since the last call.
func (q *Queue) pay(share int64) *budget {
	b, now, reserve := &q.budget, q.m.now, int64(q.m.limits.RetryReserve)*oneRetry
	if b.paid == 0 {
		b.account, b.paid, b.since = reserve, now, now
	}
	if now-b.since >= budgetWindow {
		if b.last = b.firsts; now-b.since >= 2*budgetWindow {
			b.last = 0
		}
		b.firsts, b.since = 0, now
	}
	n := (now - b.paid) / budgetFloor
	b.paid += n * budgetFloor
	b.account = min(b.account+n, max(reserve, share*max(b.firsts, b.last)))
	return b
}

// firstAttempt pays into the account for the first attempt of a message.
func (q *Queue) firstAttempt() {
	share := q.budgetShare()
	if share == 0 {
		return
	}
	b := q.pay(share)
	b.firsts++
	if b.account += share; b.short && b.account >= oneRetry {
		b.short, b.enough = false, true
	}
}

// payRetry tells whether a message that failed may be tried again, and pays for the retry.
func (q *Queue) payRetry() bool {
	share := q.budgetShare()
	if share == 0 {
		return true
	}
	b := q.pay(share)
	if b.short = b.account < oneRetry; b.short {
		return false
	}
	b.account -= oneRetry
	return true
}

// endBackOffs puts messages whose back-off is over into their lines. It stops when the account is
// too low for the next retry, or when the turn is full.
func (q *Queue) endBackOffs() {
	q.budget.enough = false
	for !q.m.turnFull() && q.retryMayEnd() {
		x, ok := q.retries.due(q.m.now)
		if !ok {
			return
		}
		q.m.budget--
		q.retryDue(x)
	}
}

// retryMayEnd tells whether the back-off that ends first may end now.
func (q *Queue) retryMayEnd() bool {
	if len(q.retries) == 0 || q.retries[0].at > q.m.now {
		return true
	}
	x := q.retries[0]
	if !q.retryLives(x) {
		return true
	}
	if s := q.slots.get(x.key); s.attempts == 0 || s.state() == slotHeld || q.parking[x.key] {
		return true
	}
	return q.payRetry()
}

// retryAllowedAt returns when the account allows the next retry, if no first attempt pays before
// that time.
func (b *budget) retryAllowedAt() int64 { return b.paid + (oneRetry-b.account)*budgetFloor }

// firstRetryAt returns when the queue must look at retries, which is not empty.
func (q *Queue) firstRetryAt() int64 {
	at := q.retries[0].at
	if q.budget.short && q.budgetShare() > 0 {
		at = max(at, q.budget.retryAllowedAt())
	}
	return at
}
