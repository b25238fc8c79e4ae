package amqp

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

// Figures reads the figures. They are not of one moment.
func (s *Server) Figures() Figures {
	f := Figures{Accepted: s.accepted.Load(), RefusedLogins: s.shared.RefusedLogins()}
	for _, c := range s.connections() {
		if c.Ended() {
			continue
		}
		f.Connections++
		if user, _ := c.Identity(); user == nil {
			f.Strangers++
			continue
		}
		if c.Held() {
			f.Blocked++
		}
		channels, consumers := c.Count()
		f.Channels += channels
		f.Consumers += consumers
	}
	return f
}
