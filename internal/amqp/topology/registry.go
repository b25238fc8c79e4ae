package topology

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/metacache"
)

// Registry has the topologies of all virtual hosts. It follows the changes of other programs over
// the same broker, as far as they are durable. Any goroutine may call its methods.
type Registry struct {
	*Env
	records   *metacache.Cache[record]
	following bool        // follow was called; only follow uses it
	open      atomic.Bool // Open has finished

	loading sync.Mutex // held while records are applied; it is locked before mu and a virtual host's lock
	mu      sync.Mutex
	byName  map[string]*Vhost
}

// Open reads the durable topology. It also continues to move dead letters that an earlier process
// left in a passage.
func Open(ctx context.Context, e *Env) (*Registry, error) {
	r := &Registry{Env: e, byName: map[string]*Vhost{}}
	if err := r.begin(ctx); err != nil {
		if r.records != nil {
			r.records.Close()
		}
		return nil, err
	}
	context.AfterFunc(e.Context, r.records.Close)
	return r, nil
}

func (r *Registry) begin(ctx context.Context) error {
	r.loading.Lock()
	void, err := r.load(ctx)
	r.loading.Unlock()
	if err != nil {
		return err
	}
	for _, x := range void {
		if _, err := r.records.Set(ctx, x.name, nil, x.Version); err != nil && surgetank.CodeOf(err) != surgetank.CodeExists {
			return err
		}
	}
	if err := r.typesKnown(ctx); err != nil {
		return err
	}
	for _, vh := range r.All() {
		err := vh.resumeDeadLetters(ctx)
		if surgetank.CodeOf(err) == surgetank.CodeUnavailable {
			r.Log.Warn("dead letters of AMQP wait, because a shard is not open", "vhost", vh.Name, "err", err)
		} else if err != nil {
			return err
		}
	}
	r.open.Store(true)
	return nil
}

// Vhost returns the topology of a virtual host, or nil if the virtual host does not exist.
func (r *Registry) Vhost(name string) *Vhost {
	if vh := r.known(name); vh != nil {
		return vh
	}
	r.loading.Lock()
	defer r.loading.Unlock()
	return r.vhost(name)
}

func (r *Registry) known(name string) *Vhost {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byName[name]
}

// vhost is Vhost for a caller that holds loading. A new topology gets the records that another
// program has stored for it.
func (r *Registry) vhost(name string) *Vhost {
	vh := r.known(name)
	if vh != nil || !r.Auth.VhostExists(name) {
		return vh
	}
	vh = newVhost(r, name)
	for _, x := range r.stored(name) {
		if x.Err != nil {
			continue
		}
		if _, err := vh.follow(x.V); err != nil {
			r.Log.Error("an AMQP record of another program cannot be used", "vhost", name, "record", x.name, "err", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byName[name] = vh
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
