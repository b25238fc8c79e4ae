package amqp

import (
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// janitorPause bounds how late an expiry or a time-out can be noticed.
const janitorPause = 250 * time.Millisecond

// janitor deletes queues that nobody has used for their x-expires, and closes channels whose deliveries have waited too long
// for their acknowledgement.
func (s *Server) janitor() {
	t := s.clock.NewTimer(janitorPause)
	defer t.Stop()
	var acks time.Time
	for {
		select {
		case <-t.C():
		case <-s.ctx.Done():
			return
		}
		now := s.clock.Now()
		s.expireQueues(now)
		if now.Sub(acks) >= time.Second {
			acks = now
			for _, vh := range s.topologies() {
				vh.forgetRetired()
			}
			for _, c := range s.connections() {
				c.checkAcks(now)
			}
		}
		t.Reset(janitorPause)
	}
}

func (s *Server) expireQueues(now time.Time) {
	for _, vh := range s.topologies() {
		var due []*queue
		vh.mu.RLock()
		for _, q := range vh.queues {
			if q.attrs().expires > 0 && len(q.consumers) == 0 && now.Sub(q.lastUse) >= q.attrs().expires {
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
func (c *conn) checkAcks(now time.Time) {
	limit := c.srv.limits.AckTimeout
	c.mu.Lock()
	var late []*channel
	var after []time.Duration
	for _, ch := range c.channels {
		if ch.closed {
			continue
		}
		if d, is := ch.unacked.late(now, limit); is {
			late, after = append(late, ch), append(after, d)
		}
	}
	c.mu.Unlock()
	for i, ch := range late {
		c.interrupt(func() error {
			if ch.closing || ch.closed {
				return nil
			}
			return ch.failed(wire.Errorf(wire.CodePreconditionFailed, "delivery acknowledgement on channel %d timed out. Timeout value used: %d ms. "+
				"This timeout value can be configured, see consumers doc guide to learn more", ch.id, after[i].Milliseconds()), 0)
		})
	}
}

// late tells whether a delivery has waited for longer than its queue, or else the server, allows.
func (l *unackedList) late(now time.Time, limit time.Duration) (time.Duration, bool) {
	sec := now.Unix()
	for i := range l.list[l.head:] {
		u := &l.list[l.head+i]
		if u.settled {
			continue
		}
		d := limit
		if u.q.attrs().ackTimeout > 0 {
			d = u.q.attrs().ackTimeout
		}
		if d > 0 && sec-u.at >= int64((d+time.Second-1)/time.Second) {
			return d, true
		}
	}
	return 0, false
}
