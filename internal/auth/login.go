package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/surgetank/surgetank"
)

// A right password is cached until it has not been used for cacheTTL. So a client that sends its
// password with each request, or opens a thousand connections, costs one hash. A login with a
// cached password never waits, so others cannot keep its user out. The cache contains keyed
// digests, not passwords.
const (
	cacheTTL = 24 * time.Hour
	cacheMax = 4096
)

// Authenticate checks a name and password. peer is the real address of the connection. If a proxy
// hides the address, pass the zero Addr, which is never loopback.
//
// A wrong name, password or peer gets the same answer, CodeDenied, after the same work. A right
// password is accepted after any number of failed logins. After too many failures a login waits in
// line (see line.go). The error is CodeBusy with RetryAfter only if the login was removed from that
// line.
func (s *Store) Authenticate(ctx context.Context, name, password string, peer netip.Addr) (*User, error) {
	if name == "" || password == "" || len(name) > surgetank.MaxNameLen || len(password) > MaxPasswordLen {
		return nil, s.refused(name, peer)
	}
	st := s.state.Load()
	record := st.users[name]
	if record.public(password) && len(st.users) > 1 && peer.Unmap().IsLoopback() {
		s.log.Warn("login refused: guest's first password is public and works only while guest is the only user", "peer", peer)
		return nil, errPublic()
	}
	secret := Secret(password)
	// A user that may not log in from this address costs the same work as an unknown user.
	known := record != nil && (!record.LoopbackOnly || peer.Unmap().IsLoopback())
	var digest [sha256.Size]byte
	if known {
		digest = s.cache.digest(record, secret)
		if s.cache.has(digest, s.now()) {
			return record.login(), nil
		}
	}
	right, inLine := false, false
	defer func() {
		if inLine {
			s.line.leave(right)
		}
	}()
	for {
		if s.late(name, peer) && !inLine {
			if err := s.line.enter(ctx, peerKey(peer)); err != nil {
				return nil, err
			}
			inLine = true
		}
		if err := s.hasher.acquire(ctx); err != nil {
			return nil, err
		}
		// The same credentials may have been verified during the wait.
		if known && s.cache.has(digest, s.now()) {
			s.hasher.release()
			right = true
			return record.login(), nil
		}
		if inLine || !s.late(name, peer) {
			break
		}
		s.hasher.release() // other logins failed meanwhile: this one must wait in line
	}
	defer s.hasher.release()
	against := s.dummy
	if record != nil && record.Hash != "" {
		against = record.phc
	}
	if ok := s.hasher.verify(secret, against); !ok || !known || record.Hash == "" {
		return nil, s.refused(name, peer)
	}
	right = true
	s.cache.add(digest, s.now())
	return record.login(), nil
}

func (u *user) login() *User { return &User{Name: u.Name, id: u.ID} }

func (s *Store) refused(name string, peer netip.Addr) error {
	now := s.now()
	s.byPeer.failed(peerKey(peer), now)
	if len(name) <= surgetank.MaxNameLen {
		s.byUser.failed(userKey(name, peer), now)
	}
	s.log.Warn("login refused", "user", shorten(name), "peer", peer)
	return surgetank.Errorf(surgetank.CodeDenied,
		"the login was refused: the user name or the password is wrong, or this user may not log in from this address")
}

// late reports whether a login must wait in line, because too many logins of its peer or for its
// user failed.
func (s *Store) late(name string, peer netip.Addr) bool {
	now := s.now()
	return s.byPeer.wait(peerKey(peer), now) > 0 || s.byUser.wait(userKey(name, peer), now) > 0
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// cache stores verified credentials by keyed digest. The key exists only in this process.
type cache struct {
	key []byte
	mu  sync.Mutex
	ok  map[[sha256.Size]byte]time.Time // expiry times
}

func newCache() *cache { return &cache{key: random(32), ok: map[[sha256.Size]byte]time.Time{}} }

// digest covers the user's id and current hash, so a changed password or a recreated user has
// another digest.
func (c *cache) digest(u *user, password Secret) (d [sha256.Size]byte) {
	m := hmac.New(sha256.New, c.key)
	for _, part := range [...]string{u.ID, u.Hash, string(password)} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		m.Write(n[:])
		m.Write([]byte(part))
	}
	m.Sum(d[:0])
	return d
}

func (c *cache) has(d [sha256.Size]byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.ok[d]
	if ok && !now.Before(until) {
		delete(c.ok, d)
		return false
	}
	if ok {
		c.ok[d] = now.Add(cacheTTL)
	}
	return ok
}

func (c *cache) add(d [sha256.Size]byte, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ok) >= cacheMax {
		for k, until := range c.ok {
			if !now.Before(until) {
				delete(c.ok, k)
			}
		}
	}
	for k := range c.ok {
		if len(c.ok) < cacheMax {
			break
		}
		delete(c.ok, k)
	}
	c.ok[d] = now.Add(cacheTTL)
}
