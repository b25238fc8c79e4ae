package amqp

import (
	"time"

	"github.com/surgetank/surgetank/internal/amqp/topology"
)

// janitorPause is the time between two rounds of the janitor. An expiry or a time-out is noticed
// with at most this delay.
const janitorPause = 250 * time.Millisecond

// janitor deletes queues that were unused for the time in x-expires. It closes channels with
// deliveries whose acknowledgement is overdue. It forgets queues that other doors have deleted.
func (s *Server) janitor() {
	t := s.clock.NewTimer(janitorPause)
	defer t.Stop()
	acks := s.clock.Passed() - time.Second // the time of the last look
	gone := topology.NewGoneQueues(s.vhosts)
	for {
		select {
		case <-t.C():
		case <-s.ctx.Done():
			return
		}
		now := s.clock.Passed()
		s.vhosts.ExpireQueues(now)
		if now-acks >= time.Second {
			acks = now
			for _, vh := range s.vhosts.All() {
				vh.ForgetRetired()
				vh.DeleteDoomed()
				vh.SayCircles()
			}
			for _, c := range s.connections() {
				c.CheckAcks(now)
				c.WatchIdle()
			}
			gone.Look(now)
		}
		t.Reset(janitorPause)
	}
}
