package session

import (
	"sync"
)

// channels has the open channels of a connection. Only the reader changes them, and it may read
// them without mu. Other goroutines call list and count.
type channels struct {
	mu   sync.Mutex
	byID map[uint16]*channel
}

func (s *channels) add(ch *channel) {
	s.mu.Lock()
	s.byID[ch.id] = ch
	s.mu.Unlock()
}

func (s *channels) remove(ch *channel) {
	s.mu.Lock()
	delete(s.byID, ch.id)
	s.mu.Unlock()
}

func (s *channels) list() []*channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*channel, 0, len(s.byID))
	for _, ch := range s.byID {
		list = append(list, ch)
	}
	return list
}

func (s *channels) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}
