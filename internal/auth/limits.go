package auth

import (
	"context"
	"fmt"
	"sync"

	"github.com/surgetank/surgetank"
)

// MaxLimit is the highest limit that can be set. A higher number would mean no limit.
const MaxLimit = 1 << 30

// VhostLimits limit a virtual host. A nil field means no limit; 0 allows nothing.
type VhostLimits struct {
	MaxConnections *int `json:"max_connections,omitempty" doc:"open connections"`
	MaxQueues      *int `json:"max_queues,omitempty" doc:"existing queues"`
}

// DefaultMaxConsumers is the limit of consumers for a user without a limit of its own.
const DefaultMaxConsumers = 1 << 18

// UserLimits limit a user, over all virtual hosts. A nil field means no limit, or
// DefaultMaxConsumers for MaxConsumers; 0 allows nothing.
type UserLimits struct {
	MaxConnections *int `json:"max_connections,omitempty" doc:"open connections over all virtual hosts"`
	MaxChannels    *int `json:"max_channels,omitempty" doc:"open AMQP channels over all connections"`
	MaxConsumers   *int `json:"max_consumers,omitempty" doc:"subscriptions over all doors; if missing: 262144"`
}

// Consumers returns how many consumers the user may have.
func (l *UserLimits) Consumers() int {
	if l.MaxConsumers == nil {
		return DefaultMaxConsumers
	}
	return *l.MaxConsumers
}

func checkLimit(field string, v *int) error {
	if v != nil && (*v < 0 || *v > MaxLimit) {
		return surgetank.FieldErrorf(field, "%s: want a number between 0 and %d, or none, not %d", field, MaxLimit, *v)
	}
	return nil
}

// PutVhostLimits replaces the limits of a virtual host. Existing connections and queues above a new
// limit stay.
func (s *Store) PutVhostLimits(ctx context.Context, name string, l VhostLimits) error {
	if err := checkLimit("max_connections", l.MaxConnections); err != nil {
		return err
	}
	if err := checkLimit("max_queues", l.MaxQueues); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.changeVhost(ctx, name, func(v *vhost) (*vhost, error) {
		if v == nil || v.Deleting {
			return nil, errNoVhost(name)
		}
		next := *v
		next.Limits = l
		return &next, nil
	})
	if err == nil {
		s.log.Info("limits of a virtual host changed", "vhost", name)
	}
	return err
}

// PutUserLimits replaces the limits of a user. Existing connections, channels and consumers above a
// new limit stay.
func (s *Store) PutUserLimits(ctx context.Context, name string, l UserLimits) error {
	if err := checkLimit("max_connections", l.MaxConnections); err != nil {
		return err
	}
	if err := checkLimit("max_channels", l.MaxChannels); err != nil {
		return err
	}
	if err := checkLimit("max_consumers", l.MaxConsumers); err != nil {
		return err
	}
	return s.changeUser(ctx, name, func(_ *state, u *user) (*user, error) {
		if u == nil {
			return nil, errNoUser(name)
		}
		next := *u
		next.Limits = l
		return &next, nil
	})
}

// QueueLimit returns how many queues a virtual host may have. limited is false if there is no
// limit.
func (s *Store) QueueLimit(vhost string) (most int, limited bool) {
	if v := s.state.Load().vhosts[vhost]; v != nil && v.Limits.MaxQueues != nil {
		return *v.Limits.MaxQueues, true
	}
	return 0, false
}

// Values of LimitError.What.
const (
	VhostConnections = "vhost connections"
	UserConnections  = "user connections"
	UserChannels     = "user channels"
	UserConsumers    = "user consumers"
)

// limitNames are the values of surgetank.Error.Limit.
var limitNames = map[string]string{VhostConnections: surgetank.LimitVhostConnections, UserConnections: surgetank.LimitUserConnections,
	UserChannels: surgetank.LimitUserChannels, UserConsumers: surgetank.LimitUserConsumers}

// LimitError names the limit that was reached. It is the cause of a CodeBusy error of Admit,
// Channel and Consumer.
type LimitError struct {
	What  string // VhostConnections, UserConnections, UserChannels or UserConsumers
	Of    string // name of the virtual host or user
	Limit int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("the limit of %d %s is reached", e.Limit, e.What)
}

func reached(what, of string, limit int) error {
	e := surgetank.Errorf(surgetank.CodeBusy, "%w for %.60q; close some, or have an administrator raise it", &LimitError{what, of, limit}, of)
	e.Limit = limitNames[what]
	return e
}

// admissions counts open connections, channels and consumers by the ids of users and virtual hosts.
type admissions struct {
	mu       sync.Mutex
	vhosts   map[string]int // number of connections by virtual host
	users    map[string]int // number of connections by user
	channels map[string]int // number of channels by user

	consumers map[string]int // number of consumers by user
}

// Admission is one open connection of a user in a virtual host, in any protocol. Its methods are
// safe for use by many goroutines.
type Admission struct {
	s           *Store
	user        *User
	vhost       string // id of the virtual host
	channels    int    // guarded by s.admitted.mu
	consumers   int    // guarded by s.admitted.mu
	left        bool
	userCounted bool
}

// Admit counts a connection. It returns CodeBusy if the virtual host or the user has reached its
// limit. Call AuthorizeVhost first: Admit does not check permissions. The caller must call Leave
// when the connection ends.
func (s *Store) Admit(u *User, vhost string) (*Admission, error) {
	st, a := s.state.Load(), &s.admitted
	v := st.vhosts[vhost]
	if v == nil || v.Deleting {
		return nil, errNoVhost(vhost)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if most := v.Limits.MaxConnections; most != nil && a.vhosts[v.ID] >= *most {
		return nil, reached(VhostConnections, vhost, *most)
	}
	ad := &Admission{s: s, user: u, vhost: v.ID}
	if !u.local {
		record, err := st.current(u)
		if err != nil {
			return nil, err
		}
		if most := record.Limits.MaxConnections; most != nil && a.users[u.id] >= *most {
			return nil, reached(UserConnections, u.Name, *most)
		}
		a.users[u.id]++
		ad.userCounted = true
	}
	a.vhosts[v.ID]++
	return ad, nil
}

// Channel counts one more channel (a stream of work inside a connection). It returns CodeBusy at
// the limit.
func (ad *Admission) Channel() error {
	a := &ad.s.admitted
	a.mu.Lock()
	defer a.mu.Unlock()
	if ad.userCounted {
		if record := ad.s.state.Load().users[ad.user.Name]; record != nil && record.ID == ad.user.id {
			if most := record.Limits.MaxChannels; most != nil && a.channels[ad.user.id] >= *most {
				return reached(UserChannels, ad.user.Name, *most)
			}
		}
		a.channels[ad.user.id]++
	}
	ad.channels++
	return nil
}

// EndChannel reverses one call of Channel.
func (ad *Admission) EndChannel() {
	a := &ad.s.admitted
	a.mu.Lock()
	defer a.mu.Unlock()
	if ad.channels > 0 {
		ad.channels--
		if ad.userCounted {
			lower(a.channels, ad.user.id, 1)
		}
	}
}

// Consumer counts one more consumer. It returns CodeBusy at the limit.
func (ad *Admission) Consumer() error {
	a := &ad.s.admitted
	a.mu.Lock()
	defer a.mu.Unlock()
	if ad.userCounted {
		if record := ad.s.state.Load().users[ad.user.Name]; record != nil && record.ID == ad.user.id {
			if most := record.Limits.Consumers(); a.consumers[ad.user.id] >= most {
				return reached(UserConsumers, ad.user.Name, most)
			}
		}
		a.consumers[ad.user.id]++
	}
	ad.consumers++
	return nil
}

// EndConsumers reverses n calls of Consumer.
func (ad *Admission) EndConsumers(n int) {
	a := &ad.s.admitted
	a.mu.Lock()
	defer a.mu.Unlock()
	n = min(n, ad.consumers)
	ad.consumers -= n
	if ad.userCounted && n > 0 {
		lower(a.consumers, ad.user.id, n)
	}
}

// Leave ends the connection with its channels and consumers. A second call has no effect.
func (ad *Admission) Leave() {
	a := &ad.s.admitted
	a.mu.Lock()
	defer a.mu.Unlock()
	if ad.left {
		return
	}
	ad.left = true
	lower(a.vhosts, ad.vhost, 1)
	if ad.userCounted {
		lower(a.users, ad.user.id, 1)
		lower(a.channels, ad.user.id, ad.channels)
		lower(a.consumers, ad.user.id, ad.consumers)
	}
	ad.channels, ad.consumers = 0, 0
}

// lower subtracts n from a count, and removes a count of zero.
func lower(m map[string]int, key string, n int) {
	if m[key] -= n; m[key] <= 0 {
		delete(m, key)
	}
}
