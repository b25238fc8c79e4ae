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

// A password that was right is known to be right for cacheTTL, so that a client that sends it with each request, or
// opens a thousand connections, costs one hash. The cache holds keyed digests, not passwords.
const (
	cacheTTL = 5 * time.Minute
	cacheMax = 4096
)

// Authenticate checks a name and password. peer is the address the connection really comes from; where a proxy hides it, pass
// the zero Addr, which is never loopback. Whatever is wrong (name, password, peer) the answer is
// the same, CodeDenied, after the same work; after too many failures it is CodeBusy with RetryAfter.
func (s *Store) Authenticate(ctx context.Context, name, password string, peer netip.Addr) (*User, error) {
	if name == "" || password == "" || len(name) > surgetank.MaxNameLen || len(password) > MaxPasswordLen {
		return nil, s.refused(name, peer)
	}
	record := s.state.Load().users[name]
	secret := Secret(password)
	// A user that may not come from this address takes the long way to its refusal, like an unknown one.
	known := record != nil && (!record.LoopbackOnly || peer.Unmap().IsLoopback())
	var digest [sha256.Size]byte
	if known {
		digest = s.cache.digest(record, secret)
		if s.cache.has(digest, s.now()) {
			return record.login(), nil
		}
	}
	if err := s.throttled(name, peer); err != nil {
		return nil, err
	}
	if err := s.hasher.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.hasher.release()
	// While this login waited for its turn the same credentials may have been verified, or refused often enough.
	if known && s.cache.has(digest, s.now()) {
		return record.login(), nil
	}
	if err := s.throttled(name, peer); err != nil {
		return nil, err
	}
	against := s.dummy
	if record != nil && record.Hash != "" {
		against = record.phc
	}
	if right := s.hasher.verify(secret, against); !right || !known || record.Hash == "" {
		return nil, s.refused(name, peer)
	}
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

func (s *Store) throttled(name string, peer netip.Addr) error {
	now := s.now()
	wait := max(s.byPeer.wait(peerKey(peer), now), s.byUser.wait(userKey(name, peer), now))
	if wait == 0 {
		return nil
	}
	return &surgetank.Error{Code: surgetank.CodeBusy, RetryAfter: wait,
		Message: "too many logins failed; wait before the next attempt"}
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// cache remembers verified credentials by keyed digest. The key lives and dies with the process.
type cache struct {
	key []byte
	mu  sync.Mutex
	ok  map[[sha256.Size]byte]time.Time // until when
}

func newCache() *cache { return &cache{key: random(32), ok: map[[sha256.Size]byte]time.Time{}} }

// digest covers the user's id and present hash: a changed password or a user made anew is another digest.
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
		ok = false
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
