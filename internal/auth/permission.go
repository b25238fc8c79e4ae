package auth

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
)

// MaxPatternLen is the longest permission pattern in bytes.
const MaxPatternLen = 1024

// Permission is what a user may do in one virtual host: for each operation a regular expression
// (RE2) that has to match the whole name of the queue or exchange. An empty one matches nothing.
type Permission struct {
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

// AllPermissions allows everything in a virtual host.
var AllPermissions = Permission{Configure: ".*", Write: ".*", Read: ".*"}

// compiled is a Permission ready to ask.
type compiled struct {
	vhostID string
	ops     [3]matcher // by Op − 1
}

type matcher struct {
	all bool           // ".*": the common case needs no automaton
	re  *regexp.Regexp // nil: nothing
}

func (m matcher) match(name string) bool { return m.all || m.re != nil && m.re.MatchString(name) }

func (p Permission) compile() (*compiled, error) {
	c := new(compiled)
	for i, f := range [...]struct{ field, pattern string }{{"configure", p.Configure}, {"write", p.Write}, {"read", p.Read}} {
		m, err := compileMatcher(f.field, f.pattern, nil)
		if err != nil {
			return nil, err
		}
		c.ops[i] = m
	}
	return c, nil
}

// compileMatcher makes a pattern ready to ask. fill, when not nil, puts names in place of
// variables.
func compileMatcher(field, pattern string, fill *strings.Replacer) (m matcher, err error) {
	switch {
	case len(pattern) > MaxPatternLen:
		return m, surgetank.FieldErrorf(field, "the %s pattern has %d bytes; at most %d are allowed", field, len(pattern), MaxPatternLen)
	case pattern == ".*":
		m.all = true
		return m, nil
	case pattern == "":
		return m, nil
	}
	if fill != nil {
		pattern = fill.Replace(pattern)
	}
	// The pattern must stand alone: one like "a)|(b" would otherwise slip out of the anchors.
	if _, err = regexp.Compile(pattern); err == nil {
		m.re, err = regexp.Compile(`\A(?s:` + pattern + `)\z`)
	}
	if err != nil {
		return m, surgetank.FieldErrorf(field, "the %s pattern is not a regular expression (RE2): %v", field, err)
	}
	return m, nil
}

// Authorize tells whether u may do op to the queue or exchange named resource (its own name,
// without the virtual host). It is the one authorisation function: every door calls it for every
// operation. It asks the present permissions, not those at login. The errors are CodeDenied, and
// CodeNotFound for a virtual host that is gone.
//
// keys are those that a topic exchange is used with: the routing keys of what is written to it, or
// the key of a binding that reads from it. The user's topic permission of that exchange, if there
// is one, has to match each of them as well.
func (s *Store) Authorize(u *User, vhost string, op Op, resource string, keys ...string) error {
	st := s.state.Load()
	p, err := st.enter(u, vhost)
	if err != nil || p == nil {
		return err
	}
	if op >= Configure && op <= Read && p.ops[op-1].match(resource) {
		for _, k := range keys {
			if !st.users[u.Name].mayUse(p.vhostID, op, resource, k) {
				return surgetank.Errorf(surgetank.CodeDenied, "user %q may not %s topic %.100q of exchange %q in virtual host %q; an administrator can grant it",
					u.Name, op, k, resource, vhost)
			}
		}
		return nil
	}
	return surgetank.Errorf(surgetank.CodeDenied, "user %q may not %s %q in virtual host %q; an administrator can grant it",
		u.Name, op, resource, vhost)
}

// AuthorizeVhost tells whether u may enter vhost at all: CodeNotFound when the virtual host does
// not exist, CodeDenied when the user has no permission there or was deleted since it logged in.
func (s *Store) AuthorizeVhost(u *User, vhost string) error {
	_, err := s.state.Load().enter(u, vhost)
	return err
}

// enter gives u's permission in vhost; nil without an error means all of them (the local
// administrator).
func (st *state) enter(u *User, vhost string) (*compiled, error) {
	if u == nil {
		return nil, errNobody()
	}
	v := st.vhosts[vhost]
	if v == nil || v.Deleting {
		return nil, surgetank.Errorf(surgetank.CodeNotFound, "there is no virtual host %q; create it, or correct the name", vhost)
	}
	if u.local {
		return nil, nil
	}
	record, err := st.current(u)
	if err != nil {
		return nil, err
	}
	if c := record.byHost[vhost]; c != nil && c.vhostID == v.ID {
		return c, nil
	}
	return nil, surgetank.Errorf(surgetank.CodeDenied, "user %q has no permission in virtual host %q; an administrator can grant it, also to itself: surgetank user allow %[1]q --vhost %[2]q --all", u.Name, vhost)
}

// current gives u's record, if u still is the user that logged in.
func (st *state) current(u *User) (*user, error) {
	if u == nil {
		return nil, errNobody()
	}
	if record := st.users[u.Name]; record != nil && record.ID == u.id {
		return record, nil
	}
	return nil, surgetank.Errorf(surgetank.CodeDenied, "user %q was deleted after it logged in", u.Name)
}

func errNobody() error {
	return surgetank.Errorf(surgetank.CodeDenied, "nobody is logged in; log in with a user name and a password")
}

// AuthorizeAdmin tells whether u may manage users, virtual hosts, permissions and sinks.
func (s *Store) AuthorizeAdmin(u *User) error { return s.authorizeTag(u, TagAdministrator) }

// AuthorizeMonitor tells whether u may see settings and figures of every virtual host;
// administrators may.
func (s *Store) AuthorizeMonitor(u *User) error {
	return s.authorizeTag(u, TagMonitoring, TagAdministrator)
}

// HasTag tells whether u has a tag now.
func (s *Store) HasTag(u *User, tag string) bool { return s.authorizeTag(u, tag) == nil }

func (s *Store) authorizeTag(u *User, anyOf ...string) error {
	if u != nil && u.local {
		return nil
	}
	record, err := s.state.Load().current(u)
	if err != nil {
		return err
	}
	for _, tag := range anyOf {
		if slices.Contains(record.Tags, tag) {
			return nil
		}
	}
	return surgetank.Errorf(surgetank.CodeDenied, "user %q needs the tag %s for this; an administrator can give it",
		u.Name, strings.Join(anyOf, " or "))
}

// PermissionInfo is one user's permission in one virtual host.
type PermissionInfo struct {
	User  string `json:"user"`
	Vhost string `json:"vhost"`
	Permission
}

// Permissions lists permissions by user and virtual host; an empty argument means every one.
func (s *Store) Permissions(userName, vhostName string) []PermissionInfo {
	st := s.state.Load()
	list := []PermissionInfo{}
	for _, u := range st.users {
		for _, g := range u.Permissions {
			v := st.vhosts[g.Vhost]
			if v == nil || v.ID != g.VhostID || v.Deleting ||
				userName != "" && u.Name != userName || vhostName != "" && g.Vhost != vhostName {
				continue
			}
			list = append(list, PermissionInfo{User: u.Name, Vhost: g.Vhost, Permission: g.Permission})
		}
	}
	slices.SortFunc(list, func(a, b PermissionInfo) int {
		if c := strings.Compare(a.User, b.User); c != 0 {
			return c
		}
		return strings.Compare(a.Vhost, b.Vhost)
	})
	return list
}

// PutPermission sets what a user may do in a virtual host, in place of what it might before.
func (s *Store) PutPermission(ctx context.Context, userName, vhostName string, p Permission) error {
	if _, err := p.compile(); err != nil {
		return err
	}
	return s.changePermission(ctx, userName, vhostName, &p)
}

// DeletePermission takes from a user every right in a virtual host. It is no error if it had none.
func (s *Store) DeletePermission(ctx context.Context, userName, vhostName string) error {
	return s.changePermission(ctx, userName, vhostName, nil)
}

func (s *Store) changePermission(ctx context.Context, userName, vhostName string, p *Permission) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state.Load()
	v := st.vhosts[vhostName]
	if v == nil || v.Deleting {
		return errNoVhost(vhostName)
	}
	old := st.users[userName]
	if old == nil {
		return errNoUser(userName)
	}
	next := *old
	next.Permissions = nil
	for _, g := range old.Permissions {
		// A grant of an earlier virtual host of any name is dropped here, where the record is
		// written anyway.
		if other := st.vhosts[g.Vhost]; g.Vhost != vhostName && other != nil && other.ID == g.VhostID {
			next.Permissions = append(next.Permissions, g)
		}
	}
	if p != nil {
		next.Permissions = append(next.Permissions, grant{VhostID: v.ID, Vhost: v.Name, Permission: *p})
	}
	return s.putUserRecord(ctx, &next)
}
