// Package auth decides who may do what: users, virtual hosts and permissions, and the single
// authorisation function that every door calls.
//
// A Store keeps its records in the broker's metadata (namespace "auth") and a copy in memory.
// Readers load the copy atomically and never wait. The copy follows the metadata: the changes of
// this Store, and those of another Store over the same broker. Each change depends on the record
// that was read, so it is stored only if no other writer has changed the record since. This package
// returns whether and why a call is refused; each door words the refusal.
package auth

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/metacache"
)

// Namespace is the namespace of a Store's records in the broker's metadata.
const Namespace = "auth"

const retryBusy = time.Second

// Op is an operation on a queue or exchange.
type Op uint8

const (
	Configure Op = iota + 1 // declare, change, delete
	Write                   // publish; bind as the destination
	Read                    // consume, peek, purge; bind as the source
)

func (op Op) String() string {
	switch op {
	case Configure:
		return "configure"
	case Write:
		return "write"
	case Read:
		return "read"
	}
	return "unknown operation"
}

// Tags that have a meaning in Surgetank. Other tags are stored and have no effect.
const (
	TagAdministrator = "administrator" // manages users, virtual hosts, permissions, sinks
	TagMonitoring    = "monitoring"    // reads settings and statistics of every virtual host
	TagImpersonator  = "impersonator"  // may publish with another user's name in user-id
)

// Store has users, virtual hosts and permissions. Open makes one. A broker has at most one, shared
// by its doors. All methods are safe for use by many goroutines.
type Store struct {
	broker door.Broker
	now    func() time.Time
	log    *slog.Logger

	hasher *hasher
	dummy  phc // compared with the password of an unknown user
	cache  *cache
	byPeer *throttle
	byUser *throttle
	line   *line

	admitted admissions

	publicHash atomic.Pointer[string] // a hash that is known to be the hash of guest's first password

	records *metacache.Cache[record]
	mu      sync.Mutex // held by this Store's writers, so that they seldom disturb each other
	state   atomic.Pointer[state]
}

// state is a consistent, immutable copy of all records.
type state struct {
	generation uint64
	users      map[string]*user
	vhosts     map[string]*vhost
	changed    chan struct{} // closed when this state is replaced
	unclaimed  func() bool
}

// Option is an option of Open.
type Option func(*Store)

// WithClock sets the Store's clock; the default is time.Now.
func WithClock(now func() time.Time) Option { return func(s *Store) { s.now = now } }

// WithLogger makes the Store log one line for every refused login and every change. Passwords are
// never logged.
func WithLogger(l *slog.Logger) Option { return func(s *Store) { s.log = l } }

// Open reads the broker's users, virtual hosts and permissions. The first Open of a broker creates
// the virtual host "/" and the user guest with password guest, all permissions on "/" and the
// administrator's tag. guest may log in from loopback only. Its first password works only while
// guest is the only user. Open fails closed: an unreadable record is CodeCorrupt.
func Open(ctx context.Context, b surgetank.Broker, opts ...Option) (*Store, error) {
	inner, err := door.Of(b)
	if err != nil {
		return nil, err
	}
	s := &Store{
		broker: inner, now: time.Now, log: slog.New(slog.DiscardHandler),
		hasher: newHasher(), cache: newCache(), byPeer: newThrottle(), byUser: newThrottle(), line: newLine(),
		dummy: phc{memory: argonMemory, time: argonTime, lanes: argonLanes, salt: random(argonSaltLen), key: random(argonKeyLen)},
	}
	s.admitted = admissions{vhosts: map[string]int{}, users: map[string]int{}, channels: map[string]int{}, consumers: map[string]int{}}
	for _, o := range opts {
		o(s)
	}
	s.state.Store(s.next(nil, map[string]*user{}, map[string]*vhost{}))
	if s.records, err = metacache.Open(ctx, inner, metacache.Options[record]{Namespace: Namespace, Decode: decodeRecord, Apply: s.apply, Log: s.log}); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the Store's watch of the broker. The Store keeps the records that it has.
func (s *Store) Close() { s.records.Close() }

// prepare checks the stored records, creates the first ones, and finishes deletions.
func (s *Store) prepare(ctx context.Context) error {
	for key, r := range s.records.All() {
		if r.Err != nil {
			return errRecord(key, r.Err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seeded := s.records.Get(seededKey); !seeded {
		if err := s.seed(ctx); err != nil {
			return err
		}
	}
	return s.finishDeletions(ctx)
}

// seed creates the first records. The mark "seeded" is written last, so a crash in between repeats
// the seeding. Records that exist already, by an interrupted seeding or by another Store, stay.
func (s *Store) seed(ctx context.Context) error {
	hash, err := s.hasher.hash(ctx, guestName)
	if err != nil {
		return err
	}
	var root *vhost
	err = s.records.Update(ctx, vhostKey(fullname.DefaultVhost), func(now metacache.Value[record], exists bool) ([]byte, error) {
		if root = now.V.vhost; exists {
			return nil, metacache.ErrSame
		}
		root = &vhost{ID: newID(), Name: fullname.DefaultVhost, Description: "the default virtual host", Created: s.now().UTC()}
		return encode(root)
	})
	if err != nil {
		return err
	}
	err = s.records.Update(ctx, userRecordKey(guestName), func(_ metacache.Value[record], exists bool) ([]byte, error) {
		if exists {
			return nil, metacache.ErrSame
		}
		s.publicHash.Store(&hash)
		return encode(&user{ID: newID(), Name: guestName, Hash: hash, Tags: []string{TagAdministrator}, LoopbackOnly: true,
			Permissions: []grant{{VhostID: root.ID, Vhost: root.Name, Permission: AllPermissions}}})
	})
	if err != nil {
		return err
	}
	return s.records.Update(ctx, seededKey, func(_ metacache.Value[record], exists bool) ([]byte, error) {
		if exists {
			return nil, metacache.ErrSame
		}
		return encode(&seededRecord{})
	})
}

// apply builds the next state from changed records. A bad record counts as missing, so it allows
// nothing.
func (s *Store) apply(changes []metacache.Change[record]) {
	old := s.state.Load()
	users, vhosts := old.users, old.vhosts
	usersCopied, vhostsCopied := false, false
	for i := range changes {
		c := &changes[i]
		missing := c.Removed || c.Err != nil
		if name, is := strings.CutPrefix(c.Name, userPrefix); is {
			if !usersCopied {
				users, usersCopied = maps.Clone(users), true
			}
			if delete(users, name); !missing {
				users[name] = c.V.user
			}
		} else if name, is := strings.CutPrefix(c.Name, vhostPrefix); is {
			if !vhostsCopied {
				vhosts, vhostsCopied = maps.Clone(vhosts), true
			}
			if delete(vhosts, name); !missing {
				vhosts[name] = c.V.vhost
			}
		}
	}
	if usersCopied || vhostsCopied {
		s.state.Store(s.next(old, users, vhosts))
		close(old.changed)
	}
}

// next returns the state after old.
func (s *Store) next(old *state, users map[string]*user, vhosts map[string]*vhost) *state {
	next := &state{users: users, vhosts: vhosts, changed: make(chan struct{}), generation: 1}
	next.unclaimed = sync.OnceValue(func() bool { return s.onlyFirstGuest(users) })
	if old != nil {
		next.generation = old.generation + 1
	}
	return next
}

// changeUser stores a change of a user's record. change gets the present record, or nil if there is
// none, and returns the next one, or nil to remove it. It must not change the present record. If
// another Store changes the record at the same time, change is called again with the newer record.
func (s *Store) changeUser(ctx context.Context, name string, change func(st *state, now *user) (*user, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := ""
	err := s.records.Update(ctx, userRecordKey(name), func(now metacache.Value[record], _ bool) ([]byte, error) {
		next, err := change(s.state.Load(), now.V.user)
		if what = "user changed"; err != nil || next == nil {
			what = "user deleted"
			return nil, err
		}
		if err := next.prepare(); err != nil {
			return nil, err
		}
		return encode(next)
	})
	if err == nil {
		s.log.Info(what, "user", name)
	}
	return err
}

// changeVhost is changeUser for the record of a virtual host.
func (s *Store) changeVhost(ctx context.Context, name string, change func(now *vhost) (*vhost, error)) error {
	return s.records.Update(ctx, vhostKey(name), func(now metacache.Value[record], _ bool) ([]byte, error) {
		next, err := change(now.V.vhost)
		if err != nil || next == nil {
			return nil, err
		}
		return encode(next)
	})
}

// Changed returns a channel that is closed at the next change of any user, virtual host or
// permission. To miss no change, call Changed first, then check the permission (AuthorizeVhost),
// then wait for the channel.
func (s *Store) Changed() <-chan struct{} { return s.state.Load().changed }

// Generation returns a number that every change increases. An answer of Authorize stays valid while
// the number is the same.
func (s *Store) Generation() uint64 { return s.state.Load().generation }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// newID draws an id for a new user or virtual host. After a deletion, a new one of the same name
// has another id and inherits nothing.
func newID() string { return hex.EncodeToString(random(16)) }
