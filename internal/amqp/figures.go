package amqp

// Figures are the door's current numbers, and its counts since NewServer.
type Figures struct {
	Connections int // open connections, including those before login
	BeforeLogin int // open connections that have not logged in
	Channels    int
	Consumers   int
	Blocked     int // connections that an alarm blocks

	Accepted      uint64 // accepted connections
	RefusedLogins uint64 // logins with a wrong user name or password
}

// Figures returns the figures. They are not a snapshot: they can be from different moments.
func (s *Server) Figures() Figures {
	f := Figures{Accepted: s.accepted.Load(), RefusedLogins: s.shared.RefusedLogins()}
	for _, c := range s.connections() {
		if c.Ended() {
			continue
		}
		f.Connections++
		if user, _ := c.Identity(); user == nil {
			f.BeforeLogin++
			continue
		}
		if c.Blocked() {
			f.Blocked++
		}
		channels, consumers := c.Count()
		f.Channels += channels
		f.Consumers += consumers
	}
	return f
}
