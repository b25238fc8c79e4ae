package memlog

import "slices"

// Copy returns a store with the data that is durable in s now, like a copy of a data directory.
// Appended entries that are not durable yet are not in the copy. Handles on s are not affected.
func (s *Store) Copy() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{entries: slices.Clone(s.entries), begin: s.begin, last: s.last, snapAt: s.snapAt, snap: s.snap}
}
