package amqp

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// janitorPause bounds how late an expiry or a time-out can be noticed.
const janitorPause = 250 * time.Millisecond

// How the janitor looks for queues that another door has deleted: some each second, so that it costs the broker little, and each
// queue not more often than the pause.
const (
	lookEach  = 64
	lookPause = 30 * time.Second
)

// janitor deletes queues that nobody has used for their x-expires, closes channels whose deliveries have waited too long
// for their acknowledgement, and forgets queues that other doors have deleted.
func (s *Server) janitor() {
	t := s.clock.NewTimer(janitorPause)
	defer t.Stop()
	acks := s.clock.Passed() - time.Second // when they were looked at last
	gone := goneQueues{began: s.clock.Passed() - lookPause}
	for {
		select {
		case <-t.C():
		case <-s.ctx.Done():
			return
		}
		now := s.clock.Passed()
		s.expireQueues(now)
		if now-acks >= time.Second {
			acks = now
			for _, vh := range s.topologies() {
				vh.forgetRetired()
			}
			for _, c := range s.connections() {
				c.checkAcks(now)
				c.watchIdle()
			}
			gone.look(s, now)
		}
		t.Reset(janitorPause)
	}
}

// goneQueues looks through the queues that this door knows for those that another one has deleted. Their use would show it, but nobody
// may ever use them again, and then they and their bindings and records would stay. The janitor owns it.
type goneQueues struct {
	left  []*queue      // of this round
	began time.Duration // of the round
}

func (g *goneQueues) look(s *Server, now time.Duration) {
	if len(g.left) == 0 {
		if now-g.began < lookPause {
			return
		}
		g.began = now
		s.mu.Lock()
		vhosts := make([]*vhost, 0, len(s.vhosts))
		for _, vh := range s.vhosts {
			vhosts = append(vhosts, vh)
		}
		s.mu.Unlock()
		for _, vh := range vhosts {
			vh.mu.RLock()
			for _, q := range vh.queues {
				g.left = append(g.left, q)
			}
			vh.mu.RUnlock()
		}
	}
	n := min(lookEach, len(g.left))
	for _, q := range g.left[:n] {
		q.forgetIfGone()
	}
	clear(g.left[:n])
	if g.left = g.left[n:]; len(g.left) == 0 {
		g.left = nil
	}
}

// forgetIfGone asks the broker. The number of a queue is never used again, so that what is gone stays gone, whatever is declared
// under its name meanwhile.
func (q *queue) forgetIfGone() {
	vh := q.vh
	if vh.known(q.name) != q {
		return
	}
	info, err := vh.srv.broker.Queue(vh.srv.ctx, q.full)
	if surgetank.CodeOf(err) == surgetank.CodeNotFound || err == nil && info.ID != q.id {
		vh.forget(q)
	}
}

func (s *Server) expireQueues(now time.Duration) {
	for _, vh := range s.topologies() {
		var due []*queue
		vh.mu.RLock()
		for _, q := range vh.queues {
			if q.attrs().expires > 0 && len(q.consumers) == 0 && now-q.lastUse >= q.attrs().expires {
				due = append(due, q)
			}
		}
		vh.mu.RUnlock()
		for _, q := range due {
			// Who receives over another door without a subscription uses the queue as well.
			if info, err := s.broker.Queue(s.ctx, q.full); err == nil && info.Delivered != q.delivered {
				q.delivered = info.Delivered
				q.touch()
				continue
			}
			_, err := vh.deleteQueueIf(q, surgetank.DeleteOptions{IfUnused: true})
			if err != nil { // another door's consumer uses it
				q.touch()
				s.log.Debug("an expired queue is still in use", "queue", q.name, "vhost", vh.name, "err", err)
			}
		}
	}
}

// topologies lists the virtual hosts.
func (s *Server) topologies() []*vhost {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*vhost, 0, len(s.vhosts))
	for _, vh := range s.vhosts {
		list = append(list, vh)
	}
	return list
}

// checkAcks closes channels with a delivery that has waited for its acknowledgement for too long.
func (c *conn) checkAcks(now time.Duration) {
	limit := c.srv.limits.AckTimeout
	var late []*channel
	var after []time.Duration
	for _, ch := range c.channels.list() {
		if d, is := ch.ledger.late(now, limit); is {
			late, after = append(late, ch), append(after, d)
		}
	}
	for i, ch := range late {
		c.asked.interrupt(func() error {
			if ch.closing || ch.closed {
				return nil
			}
			return ch.failed(wire.Errorf(wire.CodePreconditionFailed, "delivery acknowledgement on channel %d timed out. Timeout value used: %d ms. "+
				"This timeout value can be configured, see consumers doc guide to learn more", ch.id, after[i].Milliseconds()), 0)
		})
	}
}

// late tells whether a delivery has waited for longer than its queue, or else the server, allows. Both times are whole seconds,
// cut off: a difference of n seconds can be hardly more than n-1. So a delivery may have up to two seconds more, and never less.
func (l *unackedList) late(now, limit time.Duration) (time.Duration, bool) {
	sec := seconds(now)
	for i := range l.list[l.head:] {
		u := &l.list[l.head+i]
		if u.settled {
			continue
		}
		d := limit
		if u.q.attrs().ackTimeout > 0 {
			d = u.q.attrs().ackTimeout
		}
		if d > 0 && sec-u.at > int64((d+time.Second-1)/time.Second) {
			return d, true
		}
	}
	return 0, false
}

// seconds is how the list of what is not acknowledged keeps the time.
func seconds(passed time.Duration) int64 { return int64(passed / time.Second) }
