// Package auth decides who may do what: users, virtual hosts and permissions, and the single
// authorisation function that every door calls.
//
// A Store keeps its records in the broker's metadata (namespace "auth") and a copy in memory.
// Readers load the copy atomically and never wait. Writers run one at a time: each makes its change
// durable and then swaps the copy. This package returns whether and why a call is refused; each
// door words the refusal.
package auth

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
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

	mu    sync.Mutex // held by writers
	state atomic.Pointer[state]
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
	s.mu.Lock()
	defer s.mu.Unlock()
	seeded, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	if !seeded {
		if err := s.seed(ctx); err != nil {
			return nil, err
		}
	}
	return s, s.finishDeletions(ctx)
}

// Reload reads all records again and swaps them in at once. If it fails, the Store keeps its
// records.
func (s *Store) Reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.load(ctx)
	return err
}

// load reads the namespace. seeded reports whether a Store has ever been opened on this broker.
func (s *Store) load(ctx context.Context) (seeded bool, err error) {
	meta, err := s.broker.Meta(ctx, Namespace)
	if err != nil {
		return false, err
	}
	users, vhosts, seeded, err := decodeAll(meta)
	if err != nil {
		return false, err
	}
	s.swap(users, vhosts)
	return seeded, nil
}

// seed creates the first records. The mark "seeded" is written last, so a crash in between repeats
// the seeding.
func (s *Store) seed(ctx context.Context) error {
	hash, err := s.hasher.hash(ctx, guestName)
	if err != nil {
		return err
	}
	root := &vhost{ID: newID(), Name: fullname.DefaultVhost, Description: "the default virtual host", Created: s.now().UTC()}
	guest := &user{ID: newID(), Name: guestName, Hash: hash, Tags: []string{TagAdministrator}, LoopbackOnly: true,
		Permissions: []grant{{VhostID: root.ID, Vhost: root.Name, Permission: AllPermissions}}}
	if err := guest.prepare(); err != nil {
		return err
	}
	if err := s.save(ctx, vhostKey(root.Name), root); err != nil {
		return err
	}
	if err := s.save(ctx, userRecordKey(guest.Name), guest); err != nil {
		return err
	}
	if err := s.save(ctx, seededKey, seededRecord{Version: recordVersion}); err != nil {
		return err
	}
	s.publicHash.Store(&hash)
	s.swap(map[string]*user{guest.Name: guest}, map[string]*vhost{root.Name: root})
	return nil
}

// swap replaces the state and closes the channel of Changed. The caller holds mu.
func (s *Store) swap(users map[string]*user, vhosts map[string]*vhost) {
	next := &state{users: users, vhosts: vhosts, changed: make(chan struct{}), generation: 1}
	next.unclaimed = sync.OnceValue(func() bool { return s.onlyFirstGuest(users) })
	old := s.state.Load()
	if old != nil {
		next.generation = old.generation + 1
	}
	s.state.Store(next)
	if old != nil {
		close(old.changed)
	}
}

func (s *Store) swapUser(name string, u *user) {
	st := s.state.Load()
	users := maps.Clone(st.users)
	if u == nil {
		delete(users, name)
	} else {
		users[name] = u
	}
	s.swap(users, st.vhosts)
}

func (s *Store) swapVhost(name string, v *vhost) {
	st := s.state.Load()
	vhosts := maps.Clone(st.vhosts)
	if v == nil {
		delete(vhosts, name)
	} else {
		vhosts[name] = v
	}
	s.swap(st.users, vhosts)
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
