package auth

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/metacache"
)

// MaxDescriptionLen is the longest description of a virtual host in bytes.
const MaxDescriptionLen = 1024

// VhostInfo describes a virtual host: a name space of queues and exchanges with permissions of its
// own.
type VhostInfo struct {
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Created     time.Time `json:"created"`

	Limits VhostLimits `json:"limits,omitzero"`
}

// Vhosts lists all virtual hosts, ordered by name.
func (s *Store) Vhosts() []VhostInfo {
	list := []VhostInfo{}
	for _, v := range s.state.Load().vhosts {
		if !v.Deleting {
			list = append(list, v.info())
		}
	}
	slices.SortFunc(list, func(a, b VhostInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// GetVhost returns one virtual host.
func (s *Store) GetVhost(name string) (VhostInfo, error) {
	v := s.state.Load().vhosts[name]
	if v == nil || v.Deleting {
		return VhostInfo{}, errNoVhost(name)
	}
	return v.info(), nil
}

func (v *vhost) info() VhostInfo { return VhostInfo{v.Name, v.Description, v.Created, v.Limits} }

// VhostID returns the id of a virtual host. After a deletion, a new one of the same name has
// another id.
func (s *Store) VhostID(name string) (id string, exists bool) {
	v := s.state.Load().vhosts[name]
	if v == nil || v.Deleting {
		return "", false
	}
	return v.ID, true
}

// reservedVhosts is the prefix of virtual hosts that doors use for themselves, such as the one for
// dead letters on their way to an exchange.
const reservedVhosts = "amq."

// VhostExists reports whether a virtual host exists.
func (s *Store) VhostExists(name string) bool {
	v := s.state.Load().vhosts[name]
	return v != nil && !v.Deleting
}

// PutVhost creates a virtual host or changes its description. A new one has no permissions.
func (s *Store) PutVhost(ctx context.Context, name, description string) (created bool, err error) {
	if err := surgetank.ValidateName("virtual host", name); err != nil {
		return false, err
	}
	if strings.HasPrefix(name, reservedVhosts) {
		return false, surgetank.FieldErrorf("name", "virtual hosts whose names begin with %s are Surgetank's own; choose another name", reservedVhosts)
	}
	if len(description) > MaxDescriptionLen {
		return false, surgetank.FieldErrorf("description", "the description has %d bytes; at most %d are allowed", len(description), MaxDescriptionLen)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.changeVhost(ctx, name, func(old *vhost) (*vhost, error) {
		next := &vhost{ID: newID(), Name: name, Created: s.now().UTC()}
		if created = old == nil; old != nil {
			if old.Deleting {
				return nil, surgetank.Errorf(surgetank.CodeExists, "virtual host %q is still being deleted; delete it again to finish, then create it", name)
			}
			*next = *old
		}
		next.Description = description
		return next, nil
	})
	if err != nil {
		return false, err
	}
	s.log.Info("virtual host changed", "vhost", name)
	return created, nil
}

// DeleteVhost removes a virtual host with all its queues and permissions. After its first durable
// step no user can enter the virtual host. If it fails later, or the process ends, another call or
// Open finishes the deletion.
func (s *Store) DeleteVhost(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := ""
	err := s.changeVhost(ctx, name, func(v *vhost) (*vhost, error) {
		switch {
		case v == nil:
			return nil, errNoVhost(name)
		case name == fullname.DefaultVhost:
			return nil, surgetank.FieldErrorf("name", "the default virtual host %q cannot be deleted; delete its queues instead", name)
		}
		if id = v.ID; v.Deleting {
			return nil, metacache.ErrSame
		}
		next := *v
		next.Deleting = true
		return &next, nil
	})
	if err != nil {
		return err
	}
	return s.finishDeletion(ctx, name, id)
}

// finishDeletions completes deletions that an earlier process began.
func (s *Store) finishDeletions(ctx context.Context) error {
	for name, v := range s.state.Load().vhosts {
		if v.Deleting {
			if err := s.finishDeletion(ctx, name, v.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishDeletion deletes the queues of a virtual host, and then its record. Several Stores can do it
// at the same time. If one has finished, the record is gone or belongs to a new virtual host.
func (s *Store) finishDeletion(ctx context.Context, name, id string) error {
	for {
		queues, err := s.broker.Queues(ctx)
		if err != nil {
			return err
		}
		deleted := 0
		for _, q := range queues {
			if v, _ := fullname.Split(q.Name); v != name {
				continue
			}
			if !s.deleting(name, id) {
				return nil // another Store has finished
			}
			_, err := s.broker.DeleteQueue(ctx, q.Name, surgetank.DeleteOptions{})
			if err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound {
				return err
			}
			deleted++
		}
		if deleted == 0 { // a request admitted earlier may have created another queue
			break
		}
	}
	err := s.changeVhost(ctx, name, func(v *vhost) (*vhost, error) {
		if v == nil || v.ID != id || !v.Deleting {
			return nil, metacache.ErrSame
		}
		return nil, nil
	})
	if err != nil {
		return err
	}
	s.log.Info("virtual host deleted", "vhost", name)
	return nil
}

// deleting reports whether the virtual host with an id is still being deleted.
func (s *Store) deleting(name, id string) bool {
	s.records.Refresh()
	v := s.state.Load().vhosts[name]
	return v != nil && v.ID == id && v.Deleting
}

func errNoVhost(name string) error {
	return surgetank.Errorf(surgetank.CodeNotFound, "there is no virtual host %.60q; create it, or correct the name", name)
}
