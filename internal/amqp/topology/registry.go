package topology

import (
	"context"
	"sync"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
)

// Registry has the topologies of all virtual hosts. Any goroutine may call its methods.
type Registry struct {
	*Env
	mu     sync.Mutex
	byName map[string]*Vhost
}

// Open reads the durable topology. It also continues to move dead letters that an earlier process
// left in a passage.
func Open(ctx context.Context, e *Env) (*Registry, error) {
	r := &Registry{Env: e, byName: map[string]*Vhost{}}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	if err := r.typesKnown(ctx); err != nil {
		return nil, err
	}
	for _, vh := range r.All() {
		if err := vh.resumeDeadLetters(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Vhost returns the topology of a virtual host, or nil if the virtual host does not exist.
func (r *Registry) Vhost(name string) *Vhost {
	r.mu.Lock()
	defer r.mu.Unlock()
	vh := r.byName[name]
	if vh == nil && r.Auth.VhostExists(name) {
		vh = newVhost(r.Env, name)
		r.byName[name] = vh
	}
	return vh
}

// All lists the virtual hosts.
func (r *Registry) All() []*Vhost {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Vhost, 0, len(r.byName))
	for _, vh := range r.byName {
		list = append(list, vh)
	}
	return list
}

// DropDeleted forgets the topologies of deleted virtual hosts.
func (r *Registry) DropDeleted() {
	r.mu.Lock()
	var gone []*Vhost
	for name, vh := range r.byName {
		if !r.Auth.VhostExists(name) {
			delete(r.byName, name)
			gone = append(gone, vh)
		}
	}
	r.mu.Unlock()
	for _, vh := range gone {
		vh.drop()
	}
}

// drop forgets the topology of a deleted virtual host. Its queues are already gone.
func (vh *Vhost) drop() {
	var t trash
	vh.mu.Lock()
	vh.gone = true
	for _, q := range vh.queues {
		vh.removeQueue(q, &t)
	}
	for _, x := range vh.exchanges {
		vh.removeExchange(x, &t)
	}
	vh.mu.Unlock()
	vh.deadLetters.stop()
	vh.sweep(t)
	if _, err := vh.env.Broker.DeleteQueue(vh.env.Context, translate.DeadLetterQueue(vh.Name), surgetank.DeleteOptions{}); err != nil &&
		surgetank.CodeOf(err) != surgetank.CodeNotFound {
		vh.env.Log.Warn("the dead-letter passage of a deleted virtual host could not be removed", "vhost", vh.Name, "err", err)
	}
}
