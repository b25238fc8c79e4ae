package memlog

import "slices"

// Copy gives a store with what is durable in s now, as a copy of a data directory has it. What was
// appended and is not durable yet is not in the copy. Handles on s go on as if nothing had
// happened.
func (s *Store) Copy() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{entries: slices.Clone(s.entries), first: s.first, snapAt: s.snapAt, snap: s.snap}
}
