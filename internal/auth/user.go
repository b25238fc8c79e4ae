package auth

import (
	"context"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
)

// Limits of a user.
const (
	MaxPasswordLen = 1024 // bytes
	MaxTags        = 32
)

// User is a user that logged in. It only names the user; the Store checks its rights at each
// operation.
type User struct {
	Name  string
	id    string
	local bool
}

// Local returns the administrator for requests from the machine itself, where a door trusts them.
// It has every right everywhere. A door must be sure of the peer's address and of its own listener
// before using it.
func Local() *User { return &User{Name: "local administrator", local: true} }

// IsLocal reports whether u is the result of Local.
func (u *User) IsLocal() bool { return u != nil && u.local }

// String returns the name. A User contains no secret.
func (u *User) String() string {
	if u == nil {
		return "nobody"
	}
	return u.Name
}

// UserInfo is the public information about a user.
type UserInfo struct {
	Name         string   `json:"name"`
	Tags         []string `json:"tags"`
	LoopbackOnly bool     `json:"loopback_only"`
	HasPassword  bool     `json:"has_password"`

	Limits UserLimits `json:"limits,omitzero"`
}

// UserSpec is the input of PutUser. Nil fields of an existing user stay unchanged; a new user needs
// a password.
type UserSpec struct {
	Password     *Secret
	Tags         *[]string
	LoopbackOnly *bool
}

func (u *user) info() UserInfo {
	return UserInfo{Name: u.Name, Tags: append([]string{}, u.Tags...), LoopbackOnly: u.LoopbackOnly, HasPassword: u.Hash != "", Limits: u.Limits}
}

// Users lists all users, ordered by name.
func (s *Store) Users() []UserInfo {
	list := []UserInfo{}
	for _, u := range s.state.Load().users {
		list = append(list, u.info())
	}
	slices.SortFunc(list, func(a, b UserInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// GetUser returns one user.
func (s *Store) GetUser(name string) (UserInfo, error) {
	u := s.state.Load().users[name]
	if u == nil {
		return UserInfo{}, errNoUser(name)
	}
	return u.info(), nil
}

// PutUser creates or changes a user. After a change of the password the old one no longer works.
// Open connections stay open.
func (s *Store) PutUser(ctx context.Context, name string, spec UserSpec) (created bool, err error) {
	if err := validateUserName(name); err != nil {
		return false, err
	}
	if spec.Tags != nil {
		if err := validateTags(*spec.Tags); err != nil {
			return false, err
		}
	}
	var hash string
	if spec.Password != nil {
		if err := validatePassword(*spec.Password); err != nil {
			return false, err
		}
		if hash, err = s.hasher.hash(ctx, *spec.Password); err != nil { // before locking, because it is slow
			return false, err
		}
	}
	err = s.changeUser(ctx, name, func(_ *state, old *user) (*user, error) {
		next := &user{ID: newID(), Name: name}
		created = old == nil
		switch {
		case old != nil:
			*next = *old
		case hash == "":
			return nil, surgetank.FieldErrorf("password", "user %q is new and needs a password", name)
		}
		if hash != "" {
			next.Hash = hash
		}
		if spec.Tags != nil {
			next.Tags = slices.Compact(slices.Sorted(slices.Values(*spec.Tags)))
		}
		if spec.LoopbackOnly != nil {
			next.LoopbackOnly = *spec.LoopbackOnly
		}
		return next, nil
	})
	return created && err == nil, err
}

// DeleteUser removes a user and its permissions. The user's connections are notified by Changed.
func (s *Store) DeleteUser(ctx context.Context, name string) error {
	return s.changeUser(ctx, name, func(_ *state, old *user) (*user, error) {
		if old == nil {
			return nil, errNoUser(name)
		}
		return nil, nil
	})
}

func validateUserName(name string) error {
	if err := surgetank.ValidateName("user", name); err != nil {
		return err
	}
	if strings.Contains(name, ":") { // RFC 7617, section 2: the user could never log in over HTTP
		return surgetank.FieldErrorf("name", "the user name %.60q holds a colon, which HTTP Basic authentication cannot carry; leave it out", name)
	}
	return nil
}

func validatePassword(p Secret) error {
	switch {
	case p == "":
		return surgetank.FieldErrorf("password", "the password is empty; choose one")
	case len(p) > MaxPasswordLen:
		return surgetank.FieldErrorf("password", "the password has %d bytes; at most %d are allowed", len(p), MaxPasswordLen)
	case strings.ContainsRune(string(p), 0):
		return surgetank.FieldErrorf("password", "the password holds a NUL byte, which AMQP's PLAIN login cannot carry; leave it out")
	}
	return nil
}

func validateTags(tags []string) error {
	if len(tags) > MaxTags {
		return surgetank.FieldErrorf("tags", "there are %d tags; at most %d are allowed", len(tags), MaxTags)
	}
	for _, t := range tags {
		if err := surgetank.ValidateName("tag", t); err != nil {
			return surgetank.FieldErrorf("tags", "%s", err)
		}
	}
	return nil
}

func errNoUser(name string) error {
	return surgetank.Errorf(surgetank.CodeNotFound, "there is no user %.60q; create it, or correct the name", name)
}

// Same reports whether u and other are the same user, and not two users that had the same name.
func (u *User) Same(other *User) bool {
	return u != nil && other != nil && u.Name == other.Name && u.id == other.id && u.local == other.local
}

type contextKey struct{}

// WithUser returns a context that names the user of a call.
func WithUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, contextKey{}, u)
}

// UserOf returns the user of WithUser. Without one it returns nil, who has no rights.
func UserOf(ctx context.Context) *User {
	u, _ := ctx.Value(contextKey{}).(*User)
	return u
}
