package topology

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/metacache"
	"github.com/surgetank/surgetank/internal/policy"
)

// record is one decoded record. One field is set.
type record struct {
	exchange *exchangeRecord
	queue    *queueRecord
	binding  *bindingRecord
}

func (r record) vhost() string {
	switch {
	case r.exchange != nil:
		return r.exchange.Vhost
	case r.binding != nil:
		return r.binding.Vhost
	case r.queue != nil:
		vhost, _ := fullname.Split(r.queue.Full)
		return vhost
	}
	return ""
}

// rank orders records so that the ends of a binding precede the binding.
func (r record) rank() int {
	switch {
	case r.exchange != nil:
		return 0
	case r.queue != nil:
		return 1
	}
	return 2
}

func decodeRecord(name string, b []byte) (r record, err error) {
	var version int
	var args []byte
	switch {
	case strings.HasPrefix(name, metaExchange):
		r.exchange = new(exchangeRecord)
		err = json.Unmarshal(b, r.exchange)
		version, args = r.exchange.Version, r.exchange.Args
	case strings.HasPrefix(name, metaQueue):
		r.queue = new(queueRecord)
		err = json.Unmarshal(b, r.queue)
		version, args = r.queue.Version, r.queue.Args
	case strings.HasPrefix(name, metaBinding):
		r.binding = new(bindingRecord)
		err = json.Unmarshal(b, r.binding)
		version, args = r.binding.Version, r.binding.Args
	default:
		return r, nil // records of another kind are ignored
	}
	if err == nil && version != metaVersion {
		err = fmt.Errorf("its version is %d and this program knows %d", version, metaVersion)
	}
	if err == nil {
		err = wire.Table(args).Validate()
	}
	if err != nil {
		return record{}, err
	}
	return r, nil
}

// load builds the topology from this door's records and the broker's queues. It returns the records
// that describe nothing any more. The records are read before the queues, so a binding of a queue
// that another program declares meanwhile finds its queue. The caller holds loading.
func (s *Registry) load(ctx context.Context) (void []namedRecord, err error) {
	s.records, err = metacache.Open(ctx, s.Broker, metacache.Options[record]{Namespace: metaNamespace, Decode: decodeRecord, Apply: s.follow, Log: s.Log})
	if err != nil {
		return nil, err
	}
	queues, err := s.Broker.Queues(ctx)
	if err != nil && !door.IsPartial(err) {
		return nil, err
	}
	for _, v := range s.Auth.Vhosts() {
		s.byName[v.Name] = newVhost(s, v.Name)
	}
	for _, info := range queues {
		name, of := fullname.Split(info.Name)
		if vh := s.byName[name]; vh != nil {
			vh.adopt(info)
		} else if name == policy.InternalVhost && s.byName[of] == nil {
			if _, err := s.Broker.DeleteQueue(ctx, info.Name, surgetank.DeleteOptions{}); err != nil {
				return nil, err // the passage of a deleted virtual host
			}
		}
	}
	for _, r := range s.stored("") {
		used, err := false, r.Err
		if vh := s.byName[r.V.vhost()]; err == nil && vh != nil {
			used, err = vh.follow(r.V)
		}
		if err != nil {
			return nil, errRecord(r.name, err)
		}
		if !used && r.V != (record{}) {
			void = append(void, r)
		}
	}
	return void, nil
}

func errRecord(name string, err error) error {
	return surgetank.Errorf(surgetank.CodeCorrupt, "the AMQP record %q cannot be read: %w; it was written by a newer version, or is damaged", name, err)
}

type namedRecord struct {
	name string
	metacache.Value[record]
}

// stored returns the records of a virtual host, or of all, in an order in which they can be
// applied.
func (s *Registry) stored(vhost string) (list []namedRecord) {
	for name, v := range s.records.All() { // unordered: it is sorted below
		if vhost == "" || v.V.vhost() == vhost {
			list = append(list, namedRecord{name, v})
		}
	}
	slices.SortFunc(list, func(a, b namedRecord) int {
		return cmp.Or(cmp.Compare(a.V.rank(), b.V.rank()), strings.Compare(a.name, b.name))
	})
	return list
}

// follow applies changed records, of this and of other programs over the same broker. A change of
// this Registry is applied before its writer's call returns. follow locks no stripes, so a writer
// may hold them. It asks the broker only about queues that are not known.
func (s *Registry) follow(changes []metacache.Change[record]) {
	if !s.following { // the first call; load applies all records
		s.following = true
		return
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	gone := map[*Vhost]*trash{}
	slices.SortStableFunc(changes, func(a, b metacache.Change[record]) int {
		if a.Removed != b.Removed {
			if a.Removed {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.V.rank(), b.V.rank())
	})
	for i := range changes {
		x := &changes[i]
		if x.Err != nil {
			continue
		}
		vh := s.vhost(x.V.vhost())
		if vh == nil {
			continue // when the virtual host is made, its records are read
		}
		if x.Removed {
			if gone[vh] == nil {
				gone[vh] = &trash{}
			}
			vh.unfollow(x.Name, x.V, gone[vh])
			continue
		}
		if _, err := vh.follow(x.V); err != nil {
			s.Log.Error("an AMQP record of another program cannot be used", "vhost", vh.Name, "record", x.Name, "err", err)
		}
	}
	for vh, t := range gone { // unordered: each is swept alone
		if len(t.exchanges)+len(t.bindings)+len(t.queues) > 0 {
			s.Background(func() { vh.sweep(*t) })
		}
	}
}

// unfollow removes the object of a removed record.
func (vh *Vhost) unfollow(name string, r record, t *trash) {
	vh.mu.Lock()
	defer vh.mu.Unlock()
	switch {
	case r.queue != nil:
		_, plain := fullname.Split(r.queue.Full)
		if q := vh.queues[plain]; q != nil && q.ID == r.queue.ID {
			vh.env.Background(q.forgetIfGone)
		}
	case r.exchange != nil:
		if x := vh.exchanges[r.exchange.Name]; x != nil && x.id == r.exchange.ID {
			vh.removeExchange(x, t)
		}
	case r.binding != nil:
		if x := vh.exchanges[r.binding.Source]; x != nil && x.id == r.binding.SourceID {
			if b := x.bindings[strings.TrimPrefix(name, metaBinding)]; b != nil {
				vh.removeBinding(b, t)
			}
		}
	}
}

// follow makes the object of a record, if it does not exist yet. It returns false if the record
// describes nothing any more.
func (vh *Vhost) follow(r record) (used bool, err error) {
	switch {
	case r.exchange != nil:
		return vh.followExchange(r.exchange), nil
	case r.queue != nil:
		return vh.followQueue(r.queue)
	case r.binding != nil:
		return vh.followBinding(r.binding)
	}
	return false, nil
}

func (vh *Vhost) followExchange(r *exchangeRecord) bool {
	vh.mu.Lock()
	defer vh.mu.Unlock()
	var t trash // the records of the replaced exchange are void and go with the next start
	switch old := vh.exchanges[r.Name]; {
	case old == nil:
	case old.id == r.ID:
		return true
	case old.id == 0: // predefined
		return false
	default:
		vh.removeExchange(old, &t)
	}
	x := newExchange(r.Name, r.Kind, true, r.Auto, r.Internal, r.Args)
	x.id = r.ID
	vh.addExchange(x)
	return true
}

// queueOf returns the queue with a name and a number, or nil if the broker does not have it. It
// adopts a queue that another program has declared. If the shard of the queue is not open, queueOf
// assumes that the queue exists: otherwise the messages for its bindings would be confirmed and
// dropped.
func (vh *Vhost) queueOf(name string, id uint64) (*Queue, error) {
	q := vh.Known(name)
	if q != nil && q.ID == id {
		return q, nil
	}
	info, err := vh.env.Broker.Queue(vh.env.Context, fullname.Of(vh.Name, name))
	if surgetank.CodeOf(err) == surgetank.CodeUnavailable && q == nil {
		return vh.assume(name, id), nil
	}
	if err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound {
		return nil, err
	}
	if err != nil || info.ID != id {
		return nil, nil
	}
	if q != nil { // another program has deleted the queue and declared it again
		var t trash
		vh.mu.Lock()
		vh.removeQueue(q, &t)
		vh.mu.Unlock()
	}
	return vh.adopt(info), nil
}

// assume adds a queue of a shard that is not open. Publishes to the queue are refused there. Again
// looks whether the queue exists.
func (vh *Vhost) assume(name string, id uint64) *Queue {
	vh.mu.Lock()
	defer vh.mu.Unlock()
	if q := vh.queues[name]; q != nil {
		return q
	}
	q := vh.newQueue(name, id, translate.QueueAttrs{Durable: true, Foreign: true})
	vh.queues[name], vh.assumed[q] = q, true
	vh.changed()
	return q
}

// Again completes the topology after a shard was opened. The assumed queues of a shard that is
// still not open wait for the next call.
func (s *Registry) Again(ctx context.Context) error {
	var failed error
	for _, vh := range s.All() {
		vh.mu.RLock()
		assumed := slices.Collect(maps.Keys(vh.assumed))
		vh.mu.RUnlock()
		for _, q := range assumed { // unordered: each queue for itself
			failed = cmp.Or(failed, unlessAway(vh.settleAssumed(ctx, q)))
		}
		failed = cmp.Or(failed, unlessAway(vh.resumeDeadLetters(ctx)))
	}
	return cmp.Or(failed, s.typesKnown(ctx))
}

// unlessAway returns an error, except that of a shard that is not open.
func unlessAway(err error) error {
	if surgetank.CodeOf(err) == surgetank.CodeUnavailable {
		return nil
	}
	return err
}

// settleAssumed looks whether an assumed queue exists.
func (vh *Vhost) settleAssumed(ctx context.Context, q *Queue) error {
	info, err := vh.env.Broker.Queue(ctx, q.Full)
	if err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound {
		return err
	}
	var t trash
	vh.mu.Lock()
	delete(vh.assumed, q)
	switch {
	case err != nil || info.ID != q.ID:
		vh.removeQueue(q, &t)
	case q.own().Foreign:
		a := translate.AttrsOf(info.Declared())
		a.Foreign = true
		q.setDeclared(&a)
		vh.changed()
	}
	vh.mu.Unlock()
	vh.sweep(t)
	return nil
}

func (vh *Vhost) followQueue(r *queueRecord) (bool, error) {
	_, name := fullname.Split(r.Full)
	vh.mu.RLock()
	making := vh.making[name]
	vh.mu.RUnlock()
	if making { // makeQueue completes the queue
		return true, nil
	}
	a, err := translate.ParseQueueArgs(translate.QueueAttrs{Durable: true, AutoDelete: r.Auto, Args: r.Args}, translate.DescribeQueue(name, vh.Name))
	if err != nil {
		return false, err
	}
	q, err := vh.queueOf(name, r.ID)
	if err != nil {
		return false, err
	}
	if q == nil {
		if vh.Known(name) != nil {
			return false, nil // another queue has the name
		}
		// The queue was deleted, but its dead letters can still be in the passage.
		if a = vh.under(name, a); a.HasDLX {
			vh.mu.Lock()
			vh.retire(r.Full, a)
			vh.mu.Unlock()
		}
		return a.HasDLX, nil
	}
	vh.mu.Lock()
	defer vh.mu.Unlock()
	if !q.own().Foreign {
		return true, nil
	}
	q.setDeclared(&a)
	vh.changed()
	if a.Quorum && vh.registry.open.Load() {
		vh.env.Background(func() {
			if err := vh.env.Policies.MakeQuorum(vh.env.Context, q.Full); err != nil {
				vh.env.Log.Error("the policies for quorum queues could not be applied to a queue", "queue", name, "vhost", vh.Name, "err", err)
			}
		})
	}
	return true, nil
}

func (vh *Vhost) followBinding(r *bindingRecord) (bool, error) {
	src := vh.Exchange(r.Source)
	if src == nil || src.id != r.SourceID {
		return false, nil
	}
	b := &binding{source: src, key: r.Key, args: r.Args, durable: true}
	if r.Queue != "" {
		b.id = bindingID(vh.Name, src.Name, "queue", r.Queue, r.Key, r.Args)
		q, err := vh.queueOf(r.Queue, r.DestID)
		if b.queue = q; q == nil {
			return false, err
		}
	} else {
		b.id = bindingID(vh.Name, src.Name, "exchange", r.To, r.Key, r.Args)
		if b.to = vh.Exchange(r.To); b.to == nil || b.to.id != r.DestID {
			return false, nil
		}
	}
	if err := b.read(); err != nil {
		return false, err
	}
	return vh.complete(b), nil
}

// complete makes a binding visible, unless one of its ends is gone. If the binding is visible
// already, nothing changes.
func (vh *Vhost) complete(b *binding) (alive bool) {
	vh.mu.Lock()
	defer vh.mu.Unlock()
	alive = vh.exchanges[b.source.Name] == b.source &&
		(b.queue == nil || !b.queue.gone) && (b.to == nil || vh.exchanges[b.to.Name] == b.to)
	if alive && b.source.bindings[b.id] == nil {
		vh.addBinding(b)
	}
	return alive
}
