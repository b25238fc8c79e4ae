package auth

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
)

// MaxTopics is how many topic permissions a user may have.
const MaxTopics = 1024

// TopicPermission restricts a user's use of one topic exchange. Regular expressions (RE2) must
// match the whole routing key (to write) or binding key (to read). An empty one matches nothing.
// {username} and {vhost} in a pattern are replaced by those names. Exchanges without a topic
// permission are restricted only by the permissions of the exchange.
type TopicPermission struct {
	Exchange string `json:"exchange"`
	Write    string `json:"write"`
	Read     string `json:"read"`
}

// TopicPermissionInfo is one user's topic permission in one virtual host.
type TopicPermissionInfo struct {
	User  string `json:"user"`
	Vhost string `json:"vhost"`
	TopicPermission
}

// topicGrant is a user's topic permission in one virtual host, named by id.
type topicGrant struct {
	VhostID string `json:"vhost_id"`
	Vhost   string `json:"vhost"`
	TopicPermission
}

// topicKey is the key of a compiled topic permission.
type topicKey struct{ vhostID, exchange string }

type compiledTopic struct{ write, read matcher }

// compile compiles the patterns for a user.
func (t TopicPermission) compile(user, vhost string) (c compiledTopic, err error) {
	fill := strings.NewReplacer("{username}", regexp.QuoteMeta(user), "{vhost}", regexp.QuoteMeta(vhost))
	if c.write, err = compileMatcher("write", t.Write, fill); err != nil {
		return c, err
	}
	c.read, err = compileMatcher("read", t.Read, fill)
	return c, err
}

// mayUse reports whether the user's topic permission of an exchange allows key. Without one it
// returns true.
func (u *user) mayUse(vhostID string, op Op, exchange, key string) bool {
	t, ok := u.topics[topicKey{vhostID, exchange}]
	switch {
	case !ok:
		return true
	case op == Write:
		return t.write.match(key)
	case op == Read:
		return t.read.match(key)
	}
	return true
}

// TopicPermissions lists topic permissions by user, virtual host and exchange. An empty argument
// means all.
func (s *Store) TopicPermissions(userName, vhostName string) []TopicPermissionInfo {
	st := s.state.Load()
	list := []TopicPermissionInfo{}
	for _, u := range st.users {
		for _, g := range u.Topics {
			v := st.vhosts[g.Vhost]
			if v == nil || v.ID != g.VhostID || v.Deleting ||
				userName != "" && u.Name != userName || vhostName != "" && g.Vhost != vhostName {
				continue
			}
			list = append(list, TopicPermissionInfo{u.Name, g.Vhost, g.TopicPermission})
		}
	}
	slices.SortFunc(list, func(a, b TopicPermissionInfo) int {
		if c := strings.Compare(a.User, b.User); c != 0 {
			return c
		}
		if c := strings.Compare(a.Vhost, b.Vhost); c != 0 {
			return c
		}
		return strings.Compare(a.Exchange, b.Exchange)
	})
	return list
}

// PutTopicPermission replaces a user's topic permission for an exchange.
func (s *Store) PutTopicPermission(ctx context.Context, userName, vhostName string, t TopicPermission) error {
	if err := surgetank.ValidateName("exchange", t.Exchange); err != nil {
		return err
	}
	if _, err := t.compile(userName, vhostName); err != nil {
		return err
	}
	return s.changeTopic(ctx, userName, vhostName, t.Exchange, &t)
}

// DeleteTopicPermission removes a user's topic permission for an exchange, or for all exchanges if
// the name is empty. It is no error if there is none.
func (s *Store) DeleteTopicPermission(ctx context.Context, userName, vhostName, exchange string) error {
	return s.changeTopic(ctx, userName, vhostName, exchange, nil)
}

func (s *Store) changeTopic(ctx context.Context, userName, vhostName, exchange string, t *TopicPermission) error {
	return s.changeRights(ctx, userName, vhostName, func(st *state, v *vhost, next, old *user) error {
		next.Topics = nil
		for _, g := range old.Topics {
			other := st.vhosts[g.Vhost]
			replaced := g.Vhost == vhostName && (exchange == "" || g.Exchange == exchange)
			if !replaced && other != nil && other.ID == g.VhostID {
				next.Topics = append(next.Topics, g)
			}
		}
		if t != nil {
			if len(next.Topics) >= MaxTopics {
				return surgetank.Errorf(surgetank.CodeTooLarge, "user %.60q has %d topic permissions, which is the most; remove some", userName, len(next.Topics))
			}
			next.Topics = append(next.Topics, topicGrant{v.ID, v.Name, *t})
		}
		return nil
	})
}
