package queue

import (
	"strings"
	"time"
)

// Pause stops or resumes a queue's hand-outs. A pause with a positive For ends by itself after that
// time. The end is a setting, so it survives a restart.
type Pause struct {
	Name   string
	Paused bool
	For    time.Duration
	By     string // name of the user; "" if there is none
	Err    error
}

// pauseNote says who paused a queue, and when. The zero value is the note of a queue that is not
// paused, or that was paused before notes existed.
type pauseNote struct {
	by string
	at int64
}

func (q *Queue) pauseNote() pauseNote { return pauseNote{q.pausedBy, q.pausedAt} }

// maxPauseBy is the largest number of bytes of a name in a note.
const maxPauseBy = 255

// notePause returns the note of a queue after a change of its settings. A queue that stays paused
// keeps its note. q is nil for a new queue.
func (m *Machine) notePause(q *Queue, paused bool, by string) pauseNote {
	switch {
	case !paused:
		return pauseNote{}
	case q != nil && q.config.Paused:
		return q.pauseNote()
	}
	return pauseNote{by: clipTo(strings.ToValidUTF8(by, "\uFFFD"), maxPauseBy), at: m.now}
}

func (c *Pause) run(m *Machine) bool {
	q := m.byName[c.Name]
	if q == nil {
		c.Err = noQueue(c.Name)
		return true
	}
	if q.frozen {
		c.Err = q.movingError()
		return true
	}
	var until time.Time
	if c.Paused && c.For > 0 {
		until = time.Unix(0, m.now+int64(c.For)).UTC()
	}
	q.pause(c.Paused, until, c.By)
	return true
}

// pause logs that hand-outs stop or resume.
func (q *Queue) pause(paused bool, until time.Time, by string) {
	if q.config.Paused == paused && q.config.PausedUntil.Equal(until) {
		return
	}
	r := Record{Kind: kindQueueSet, Queue: q.id, Name: q.name, Config: q.config}
	r.Config.Paused, r.Config.PausedUntil = paused, until
	r.Pause = q.m.notePause(nil, paused, by) // the last command counts, because it decided the end
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
		q.pause(false, time.Time{}, "")
	}
}
