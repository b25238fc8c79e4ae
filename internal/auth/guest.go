package auth

import (
	"slices"

	"github.com/surgetank/surgetank"
)

// guestName is the name of the first user, and its password.
const guestName = "guest"

// Unclaimed reports whether the broker has no users of its own yet: guest is the only one and is
// unchanged since Open created it. Only then may a door let this machine's programs in without a
// login. A broker without any user is not unclaimed.
func (s *Store) Unclaimed() bool { return s.state.Load().unclaimed() }

// onlyFirstGuest reports whether guest, with its first password, is the only user. The check
// computes one slow password hash, unless Open created guest in this process. Each state calls it
// once.
func (s *Store) onlyFirstGuest(users map[string]*user) bool {
	g := users[guestName]
	if len(users) != 1 || g == nil || !g.LoopbackOnly || g.Hash == "" || !slices.Equal(g.Tags, []string{TagAdministrator}) {
		return false
	}
	if known := s.publicHash.Load(); known != nil && *known == g.Hash {
		return true
	}
	if !s.hasher.verify(guestName, g.phc) {
		return false
	}
	hash := g.Hash
	s.publicHash.Store(&hash)
	return true
}

// public reports whether a login uses guest's well-known password. If an operator allowed guest to
// log in from other machines, the operator has chosen to have such a user, and public returns
// false.
func (u *user) public(password string) bool {
	return u != nil && u.Name == guestName && u.LoopbackOnly && password == guestName
}

// errPublic may be shown to everyone: guest's first password is no secret.
func errPublic() error {
	return surgetank.Errorf(surgetank.CodeDenied,
		"the login was refused: guest's first password is public and works only while guest is the only user; log in as a user of your own, or give guest another password (surgetank user set guest --password)")
}
