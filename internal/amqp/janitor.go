package amqp

import (
	"time"

	"github.com/surgetank/surgetank/internal/amqp/topology"
)

// janitorPause bounds how late an expiry or a time-out can be noticed.
const janitorPause = 250 * time.Millisecond

// janitor deletes queues that nobody has used for their x-expires, closes channels whose deliveries
// have waited too long for their acknowledgement, and forgets queues that other doors have deleted.
func (s *Server) janitor() {
	t := s.clock.NewTimer(janitorPause)
	defer t.Stop()
	acks := s.clock.Passed() - time.Second // when they were looked at last
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
