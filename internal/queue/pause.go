package queue

import "time"

// Pause stops or resumes a queue's hand-outs. A pause with a positive For ends by itself after that
// time. The end is a setting, so it survives a restart.
type Pause struct {
	Name   string
	Paused bool
	For    time.Duration
	Err    error
}

func (c *Pause) run(m *Machine) bool {
	q := m.byName[c.Name]
	if q == nil {
		c.Err = noQueue(c.Name)
		return true
	}
	var until time.Time
	if c.Paused && c.For > 0 {
		until = time.Unix(0, m.now+int64(c.For)).UTC()
	}
	q.pause(c.Paused, until)
	return true
}

// pause logs that hand-outs stop or resume.
func (q *Queue) pause(paused bool, until time.Time) {
	if q.config.Paused == paused && q.config.PausedUntil.Equal(until) {
		return
	}
	r := Record{Kind: kindQueueSet, Queue: q.id, Name: q.name, Config: q.config}
	r.Config.Paused, r.Config.PausedUntil = paused, until
	q.m.emit(&r)
}

// pauseEnds returns when the queue's pause ends by itself; 0 if the pause has no end.
func (q *Queue) pauseEnds() int64 {
	if !q.config.Paused || q.config.PausedUntil.IsZero() {
		return 0
	}
	return max(1, q.config.PausedUntil.UnixNano())
}

// endPause resumes hand-outs if the pause is over.
func (q *Queue) endPause() {
	if at := q.pauseEnds(); at != 0 && at <= q.m.now {
		q.pause(false, time.Time{})
	}
}
