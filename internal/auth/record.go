package auth

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/metacache"
)

// Records are JSON objects with the keys "user/NAME" and "vhost/NAME"; "seeded" marks that the
// first records were created. A user's record contains its permissions, which name the virtual host
// by its id. So deleting a user or a virtual host is one write that also ends the permissions.
const (
	recordVersion = 1
	userPrefix    = "user/"
	vhostPrefix   = "vhost/"
	seededKey     = "seeded"
)

func userRecordKey(name string) string { return userPrefix + name }
func vhostKey(name string) string      { return vhostPrefix + name }

type seededRecord struct {
	Version int `json:"v"`
}

// user is one user's stored record. Do not change it after it has been published in a state.
type user struct {
	Version      int      `json:"v"`
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	Hash         string   `json:"hash,omitempty"` // PHC string; empty: this user cannot log in with a password
	Tags         []string `json:"tags,omitempty"`
	LoopbackOnly bool     `json:"loopback_only,omitempty"`
	Permissions  []grant  `json:"permissions,omitempty"`

	Topics []topicGrant `json:"topics,omitempty"`
	Limits UserLimits   `json:"limits,omitzero"`

	phc    phc
	byHost map[string]*compiled // permissions by virtual host name
	topics map[topicKey]compiledTopic
}

// grant is a user's permission in one virtual host, named by id.
type grant struct {
	VhostID string `json:"vhost_id"`
	Vhost   string `json:"vhost"`
	Permission
}

// vhost is a virtual host's stored record. Do not change it after it has been published in a state.
type vhost struct {
	Version     int         `json:"v"`
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Created     time.Time   `json:"created"`
	Limits      VhostLimits `json:"limits,omitzero"`

	Deleting bool `json:"deleting,omitempty"` // its queues are being deleted; callers see it as deleted already
}

// prepare computes the fields that are derived from stored ones.
func (u *user) prepare() error {
	u.Version = recordVersion
	if u.Hash != "" {
		p, err := parsePHC(u.Hash)
		if err != nil {
			return err
		}
		u.phc = p
	}
	u.byHost = make(map[string]*compiled, len(u.Permissions))
	for _, g := range u.Permissions {
		c, err := g.Permission.compile()
		if err != nil {
			return err
		}
		c.vhostID = g.VhostID
		u.byHost[g.Vhost] = c
	}
	u.topics = make(map[topicKey]compiledTopic, len(u.Topics))
	for _, g := range u.Topics {
		c, err := g.TopicPermission.compile(u.Name, g.Vhost)
		if err != nil {
			return err
		}
		u.topics[topicKey{g.VhostID, g.Exchange}] = c
	}
	return nil
}

// record is one decoded record. One field is set, or none for the mark "seeded".
type record struct {
	user  *user
	vhost *vhost
}

func encode(r any) ([]byte, error) {
	switch r := r.(type) {
	case *user:
		r.Version = recordVersion
	case *vhost:
		r.Version = recordVersion
	case *seededRecord:
		r.Version = recordVersion
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, surgetank.Errorf(surgetank.CodeInternal, "an access record could not be encoded: %w", err)
	}
	return b, nil
}

func decodeRecord(key string, value []byte) (r record, err error) {
	switch {
	case key == seededKey:
		var x seededRecord
		return r, metacache.DecodeJSON(value, &x, &x.Version, recordVersion)
	case strings.HasPrefix(key, userPrefix):
		u := new(user)
		if err = metacache.DecodeJSON(value, u, &u.Version, recordVersion); err == nil {
			err = u.prepare()
		}
		if err == nil && userRecordKey(u.Name) != key {
			err = fmt.Errorf("it is the record of user %q", u.Name)
		}
		if err == nil {
			r.user = u
		}
		return r, err
	case strings.HasPrefix(key, vhostPrefix):
		v := new(vhost)
		if err = metacache.DecodeJSON(value, v, &v.Version, recordVersion); err == nil && vhostKey(v.Name) != key {
			err = fmt.Errorf("it is the record of virtual host %q", v.Name)
		}
		if err == nil {
			r.vhost = v
		}
		return r, err
	}
	return r, fmt.Errorf("this version knows no such record")
}

func errRecord(key string, err error) error {
	return surgetank.Errorf(surgetank.CodeCorrupt,
		"the stored access record %q cannot be used: %w; run the version that wrote it, or restore a backup", key, err)
}
