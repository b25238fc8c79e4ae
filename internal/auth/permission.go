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

// Permission has a regular expression (RE2) for each operation of a user in one virtual host. It
// must match the whole name of the queue or exchange. An empty one matches nothing.
type Permission struct {
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

// AllPermissions allows everything in a virtual host.
var AllPermissions = Permission{Configure: ".*", Write: ".*", Read: ".*"}

// compiled is a Permission with compiled patterns.
type compiled struct {
	vhostID string
	ops     [3]matcher // the index is Op − 1
}

type matcher struct {
	all bool           // the pattern is ".*": the common case needs no regexp
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

// compileMatcher compiles a pattern. If fill is not nil, it replaces variables in the pattern by
// names.
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
	// The pattern must be valid by itself: a pattern like "a)|(b" would otherwise escape the
	// anchors.
	if _, err = regexp.Compile(pattern); err == nil {
		m.re, err = regexp.Compile(`\A(?s:` + pattern + `)\z`)
	}
	if err != nil {
		return m, surgetank.FieldErrorf(field, "the %s pattern is not a regular expression (RE2): %v", field, err)
	}
	return m, nil
}

// Authorize returns nil if u may do op to the queue or exchange named resource, without the virtual
// host's name. It is the single authorisation function: every door calls it for every operation. It
// uses the current permissions, not those at login. The errors are CodeDenied, and CodeNotFound for
// a missing virtual host.
//
// keys are used with topic exchanges: the routing keys of a write, or the key of a binding that
// reads. If the user has a topic permission for the exchange, it must match each key as well.
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

// AuthorizeVhost returns nil if u may enter vhost. It returns CodeNotFound if the virtual host does
// not exist. It returns CodeDenied if the user has no permission there or was deleted after its
// login.
func (s *Store) AuthorizeVhost(u *User, vhost string) error {
	_, err := s.state.Load().enter(u, vhost)
	return err
}

// enter returns u's permission in vhost. nil without an error means all permissions (the local
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

// current returns u's record, if u is still the user that logged in.
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
	return surgetank.Errorf(surgetank.CodeDenied, "no user is logged in; log in with a user name and a password")
}

// AuthorizeAdmin returns nil if u may manage users, virtual hosts, permissions and sinks.
func (s *Store) AuthorizeAdmin(u *User) error { return s.authorizeTag(u, TagAdministrator) }

// AuthorizeMonitor returns nil if u may see settings and statistics of every virtual host.
// Administrators may.
func (s *Store) AuthorizeMonitor(u *User) error {
	return s.authorizeTag(u, TagMonitoring, TagAdministrator)
}

// HasTag reports whether u has a tag now.
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

// Permissions lists permissions by user and virtual host. An empty argument means all.
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

// PutPermission replaces a user's permission in a virtual host.
func (s *Store) PutPermission(ctx context.Context, userName, vhostName string, p Permission) error {
	if _, err := p.compile(); err != nil {
		return err
	}
	return s.changePermission(ctx, userName, vhostName, &p)
}

// DeletePermission removes all rights of a user in a virtual host. It is no error if there are
// none.
func (s *Store) DeletePermission(ctx context.Context, userName, vhostName string) error {
	return s.changePermission(ctx, userName, vhostName, nil)
}

func (s *Store) changePermission(ctx context.Context, userName, vhostName string, p *Permission) error {
	return s.changeRights(ctx, userName, vhostName, func(st *state, v *vhost, next, old *user) error {
		next.Permissions = nil
		for _, g := range old.Permissions {
			// Permissions for deleted virtual hosts are removed here, because the record is written
			// anyway.
			if other := st.vhosts[g.Vhost]; g.Vhost != vhostName && other != nil && other.ID == g.VhostID {
				next.Permissions = append(next.Permissions, g)
			}
		}
		if p != nil {
			next.Permissions = append(next.Permissions, grant{VhostID: v.ID, Vhost: v.Name, Permission: *p})
		}
		return nil
	})
}

// changeRights changes the rights of an existing user in an existing virtual host. change gets a
// copy of the user.
func (s *Store) changeRights(ctx context.Context, userName, vhostName string, change func(st *state, v *vhost, next, old *user) error) error {
	return s.changeUser(ctx, userName, func(st *state, old *user) (*user, error) {
		v := st.vhosts[vhostName]
		if v == nil || v.Deleting {
			return nil, errNoVhost(vhostName)
		}
		if old == nil {
			return nil, errNoUser(userName)
		}
		next := *old
		if err := change(st, v, &next, old); err != nil {
			return nil, err
		}
		return &next, nil
	})
}
