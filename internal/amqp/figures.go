package amqp

import "sync/atomic"

// Figures is what the door shows of itself now, and has counted since it was made.
type Figures struct {
	Connections int // open, also those that have not logged in
	Strangers   int // of Connections, those that have not logged in
	Channels    int
	Consumers   int
	Blocked     int // connections that are held back by an alarm

	Accepted      uint64 // connections
	RefusedLogins uint64 // with a wrong user name or password
}

// counted is what only counts up.
type counted struct{ accepted, refusedLogins atomic.Uint64 }

// Figures reads the figures. They are not of one moment.
func (s *Server) Figures() Figures {
	f := Figures{Accepted: s.counted.accepted.Load(), RefusedLogins: s.counted.refusedLogins.Load()}
	for _, c := range s.connections() {
		if c.over.Load() {
			continue
		}
		f.Connections++
		if user, _ := c.identity(); user == nil {
			f.Strangers++
			continue
		}
		if c.held.Load() {
			f.Blocked++
		}
		c.mu.Lock()
		f.Channels += len(c.channels)
		for _, ch := range c.channels {
			f.Consumers += len(ch.consumers)
		}
		c.mu.Unlock()
	}
	return f
}
