package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/auth"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/metacache"
	"github.com/surgetank/surgetank/internal/settings"
)

// Namespace is the namespace of a Broker's records in the broker's metadata. Records are JSON
// objects: "p." for policies and "q." for declarations of queues, followed by a hash of the
// described object's name. So names of any length fit.
const Namespace = "policy"

const (
	recordVersion = 1
	policyPrefix  = "p."
	ownPrefix     = "q."
)

type policyRecord struct {
	Version int    `json:"v"`
	VhostID string `json:"vhost_id"`
	Policy
}

type ownRecord struct {
	Version    int            `json:"v"`
	Queue      string         `json:"queue"` // full name
	ID         uint64         `json:"id"`
	Pending    bool           `json:"pending,omitempty"` // see own
	Settings   map[string]any `json:"settings"`
	DeadLetter string         `json:"dead_letter,omitempty"` // full name, which settings cannot contain
}

func hashOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

func policyKey(vhost, name string) string { return policyPrefix + hashOf(vhost, name) }
func ownKey(queue string) string          { return ownPrefix + hashOf(queue) }

// set is all policies at one moment. It is immutable.
type set struct {
	byVhost map[string][]*compiled // policies in order of priority
	version uint64                 // of the newest change
}

// Open reads the policies of b and applies them to every queue. The Store must belong to the same
// broker. It fails closed: an unreadable record is CodeCorrupt.
func Open(ctx context.Context, b surgetank.Broker, users *auth.Store, log *slog.Logger) (*Broker, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	inner, err := door.Of(b)
	if err != nil {
		return nil, err
	}
	p := &Broker{Broker: inner, auth: users, log: log, under: map[string]own{}, exclusive: map[string]claim{}, watchers: map[*func()]struct{}{}}
	p.life, p.stop = context.WithCancel(context.Background())
	p.all.Store(&set{byVhost: map[string][]*compiled{}})
	p.change.Lock()
	defer p.change.Unlock()
	if p.records, err = metacache.Open(ctx, inner, metacache.Options[record]{Namespace: Namespace, Decode: decodeRecord, Apply: p.follow, Log: log}); err != nil {
		return nil, err
	}
	if err := p.prepare(ctx); err != nil {
		p.Unfollow()
		return nil, err
	}
	return p, nil
}

// Unfollow ends the Broker's watch of the plain broker. The Broker keeps the policies that it has.
func (b *Broker) Unfollow() {
	b.stop()
	b.records.Close()
}

// prepare checks the stored records, removes those of deleted virtual hosts, and gives every queue
// its settings. The caller holds change.
func (b *Broker) prepare(ctx context.Context) error {
	for key, r := range b.records.All() {
		if r.Err != nil {
			return surgetank.Errorf(surgetank.CodeCorrupt, "the stored policy record %q cannot be used: %w; run the version that wrote it, or restore a backup", key, r.Err)
		}
		if r.V.policy == nil {
			continue
		}
		if id, exists := b.auth.VhostID(r.V.policy.Vhost); !exists || id != r.V.policy.vhostID {
			if _, err := b.records.Set(ctx, key, nil, r.Version); err != nil && surgetank.CodeOf(err) != surgetank.CodeExists {
				return err
			}
		}
	}
	b.applied = b.all.Load().version
	return b.applyAll(ctx)
}

// record is one decoded record: a policy or the declaration of a queue.
type record struct {
	policy *compiled
	queue  string
	own    own
}

func decodeRecord(key string, value []byte) (r record, err error) {
	switch {
	case strings.HasPrefix(key, policyPrefix):
		var p policyRecord
		if err := decode(value, &p, &p.Version); err != nil {
			return r, err
		}
		if r.policy, err = compile(p.Policy); err == nil {
			r.policy.vhostID = p.VhostID
		}
		return r, err
	case strings.HasPrefix(key, ownPrefix):
		r.queue, r.own, err = decodeOwn(value)
		return r, err
	}
	return r, fmt.Errorf("this version knows no such record")
}

func decodeOwn(value []byte) (queue string, o own, err error) {
	var r ownRecord
	if err := decode(value, &r, &r.Version); err != nil {
		return "", o, err
	}
	c, err := settings.Decode(r.Settings)
	if err != nil {
		return "", o, err
	}
	c.DeadLetter = r.DeadLetter
	return r.Queue, own{id: r.ID, pending: r.Pending, config: c}, nil
}

// follow builds the next set of policies from changed records. It is called for the changes of
// every Broker over the same plain broker, including this one. A policy of this Broker is then
// applied by its writer, and the policy of another one by a goroutine: see update.
func (b *Broker) follow(changes []metacache.Change[record]) {
	next := &set{byVhost: b.all.Load().byVhost, version: b.all.Load().version}
	lists := map[string]bool{} // virtual hosts whose lists are copies
	for i := range changes {
		x := &changes[i]
		missing := x.Removed || x.Err != nil
		if strings.HasPrefix(x.Name, ownPrefix) {
			b.ownChanged(x.Name, x.V, x.Version, missing)
			continue
		}
		if len(lists) == 0 {
			next.byVhost = maps.Clone(next.byVhost)
		}
		next.version = max(next.version, x.Version)
		for vhost, list := range next.byVhost { // unordered: each is changed alone
			at := slices.IndexFunc(list, func(o *compiled) bool { return policyKey(o.Vhost, o.Name) == x.Name })
			if at >= 0 {
				if list = slices.Delete(slices.Clone(list), at, at+1); len(list) == 0 {
					delete(next.byVhost, vhost)
				} else {
					next.byVhost[vhost] = list
				}
			}
		}
		lists[x.Name] = true
		if p := x.V.policy; !missing {
			list := slices.DeleteFunc(slices.Clone(next.byVhost[p.Vhost]), func(o *compiled) bool { return o.vhostID != p.vhostID && !b.isNow(o) })
			list = append(list, p)
			slices.SortFunc(list, (*compiled).before)
			next.byVhost[p.Vhost] = list
		}
	}
	if len(lists) == 0 {
		return
	}
	b.all.Store(next)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.behind = true; !b.updating && b.life.Err() == nil {
		b.updating = true
		go b.update()
	}
}

// isNow reports whether a policy belongs to the present virtual host of its name.
func (b *Broker) isNow(c *compiled) bool {
	id, exists := b.auth.VhostID(c.Vhost)
	return exists && id == c.vhostID
}

// ownChanged follows the stored declaration of a queue.
func (b *Broker) ownChanged(key string, r record, version uint64, missing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if missing {
		if r.queue != "" {
			delete(b.under, r.queue)
		}
		return
	}
	r.own.version = version
	b.under[r.queue] = r.own
}

// update applies the policies that other Brokers have changed. It ends when none is left.
func (b *Broker) update() {
	for {
		b.mu.Lock()
		if !b.behind || b.life.Err() != nil {
			b.updating = false
			b.mu.Unlock()
			return
		}
		b.behind = false
		b.mu.Unlock()
		b.change.Lock()
		if b.all.Load().version != b.applied {
			if err := b.spread(b.life, func(vhost string) bool { return b.typed.Load() || !byType(b.in(vhost)) }); err != nil && b.life.Err() == nil {
				b.log.Error("policies that another program changed could not be applied to every queue", "err", err)
			}
		}
		b.change.Unlock()
	}
}

// saveOwn stores the declaration of a queue. version is the version of the record that the caller
// has read. If another Broker has changed the record, the error is errRaced.
func (b *Broker) saveOwn(ctx context.Context, queue string, o own, version uint64) (uint64, error) {
	r := ownRecord{Version: recordVersion, Queue: queue, ID: o.id, Pending: o.pending, DeadLetter: o.config.DeadLetter}
	c := o.config
	c.DeadLetter = ""
	r.Settings = settings.Encode(c)
	v, err := json.Marshal(r)
	if err != nil {
		return 0, surgetank.Errorf(surgetank.CodeInternal, "a policy record could not be encoded: %w", err)
	}
	version, err = b.records.Set(ctx, ownKey(queue), v, version)
	if surgetank.CodeOf(err) == surgetank.CodeExists {
		err = errRaced
	}
	return version, err
}

// decode reads one record strictly, because an unknown field might be a limit.
func decode(v []byte, into any, version *int) error {
	d := json.NewDecoder(bytes.NewReader(v))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("something follows the record")
	}
	if *version != recordVersion {
		return fmt.Errorf("it has version %d, this version knows %d", *version, recordVersion)
	}
	return nil
}

// in returns the policies of a virtual host in order of priority. It ignores policies of an earlier
// virtual host of the same name.
func (b *Broker) in(vhost string) []*compiled {
	list := b.all.Load().byVhost[vhost]
	if len(list) == 0 {
		return nil
	}
	id, exists := b.auth.VhostID(vhost)
	if !exists {
		return nil
	}
	for i := range list {
		if list[i].vhostID != id { // the list is copied only until the old policies are removed
			return slices.DeleteFunc(slices.Clone(list), func(c *compiled) bool { return c.vhostID != id })
		}
	}
	return list
}

// match returns the policy of a queue or exchange, or nil if there is none.
func (b *Broker) match(vhost string, what Target, name string) *compiled {
	list := b.in(vhost)
	if len(list) == 0 {
		return nil
	}
	is := b.targets(what, vhost, name)
	for _, c := range list {
		if c.covers(is, name) {
			return c
		}
	}
	return nil
}

// Door returns the settings that the policy of a queue or exchange leaves to the door. It is the
// zero value if no policy applies.
func (b *Broker) Door(vhost string, what Target, name string) Door {
	if c := b.match(vhost, what, name); c != nil {
		return c.rules.door
	}
	return Door{}
}

// Policies lists the policies of a virtual host in order of priority. An empty name means all
// virtual hosts.
func (b *Broker) Policies(vhost string) []Policy {
	list := []Policy{}
	for _, v := range slices.Sorted(maps.Keys(b.all.Load().byVhost)) {
		if vhost != "" && v != vhost {
			continue
		}
		for _, c := range b.in(v) {
			list = append(list, c.Policy)
		}
	}
	return list
}

// GetPolicy returns one policy.
func (b *Broker) GetPolicy(vhost, name string) (Policy, error) {
	for _, c := range b.in(vhost) {
		if c.Name == name {
			return c.Policy, nil
		}
	}
	return Policy{}, surgetank.Errorf(surgetank.CodeNotFound, "there is no policy %.60q in virtual host %.60q; create it, or correct the name", name, vhost)
}

// PutPolicy creates or replaces a policy, and updates every queue that it covers or no longer
// covers. If the update fails part of the way, the error says so. The policy is stored, and the
// next PutPolicy or start of the server completes the update.
func (b *Broker) PutPolicy(ctx context.Context, p Policy) (created bool, err error) {
	c, err := compile(p)
	if err != nil {
		return false, err
	}
	b.change.Lock()
	defer b.change.Unlock()
	id, exists := b.auth.VhostID(p.Vhost)
	if !exists {
		return false, surgetank.Errorf(surgetank.CodeNotFound, "there is no virtual host %.60q; create it, or correct the name", p.Vhost)
	}
	c.vhostID = id
	key := policyKey(p.Vhost, p.Name)
	err = b.records.Update(ctx, key, func(now metacache.Value[record], exists bool) ([]byte, error) {
		created = !exists || now.V.policy.vhostID != id
		if n := len(b.in(p.Vhost)); created && n >= MaxPolicies {
			return nil, surgetank.Errorf(surgetank.CodeTooLarge, "virtual host %.60q has %d policies, which is the most; remove some", p.Vhost, n)
		}
		v, err := json.Marshal(policyRecord{recordVersion, id, c.Policy})
		if err != nil {
			err = surgetank.Errorf(surgetank.CodeInternal, "a policy record could not be encoded: %w", err)
		}
		return v, err
	})
	if err != nil {
		return false, err
	}
	return created, b.spread(ctx, func(v string) bool { return v == p.Vhost })
}

// DeletePolicy removes a policy. Its queues get their declared settings back, or those of another
// policy.
func (b *Broker) DeletePolicy(ctx context.Context, vhost, name string) error {
	b.change.Lock()
	defer b.change.Unlock()
	err := b.records.Update(ctx, policyKey(vhost, name), func(metacache.Value[record], bool) ([]byte, error) {
		_, err := b.GetPolicy(vhost, name)
		return nil, err
	})
	if err != nil {
		return err
	}
	return b.spread(ctx, func(v string) bool { return v == vhost })
}

// spread applies the present policies to the queues of some virtual hosts, after a change of the
// policies. The caller holds change. Declarations that have read the policies before the change
// finish first.
func (b *Broker) spread(ctx context.Context, in func(vhost string) bool) error {
	b.gate.Lock()
	version := b.all.Load().version
	b.gate.Unlock() //lint:ignore SA2001 waits for the declarations under way
	err := b.apply(ctx, in)
	b.applied = max(b.applied, version)
	b.tell()
	return err
}

// Again applies all policies again, after a shard was opened whose queues could have missed a
// change.
func (b *Broker) Again(ctx context.Context) error {
	b.change.Lock()
	defer b.change.Unlock()
	return b.applyAll(ctx)
}

// applyAll gives every queue the settings that the policies require, and removes records of deleted
// queues.
func (b *Broker) applyAll(ctx context.Context) error {
	if len(b.all.Load().byVhost) == 0 && len(b.under) == 0 {
		return nil
	}
	if err := b.apply(ctx, func(vhost string) bool { return b.typed.Load() || !byType(b.in(vhost)) }); err != nil {
		return err
	}
	queues, err := b.Broker.Queues(ctx)
	if door.IsPartial(err) {
		return nil // the other queues are not known to be deleted
	}
	if err != nil {
		return err
	}
	ids := make(map[string]uint64, len(queues))
	for i := range queues {
		ids[queues[i].Name] = queues[i].ID
	}
	for name, o := range maps.Clone(b.under) {
		if ids[name] != o.id {
			b.forget(ctx, name, o.version)
		}
	}
	return nil
}

// apply gives the queues of some virtual hosts their settings. The queues of a shard that is not
// open get theirs from Again.
func (b *Broker) apply(ctx context.Context, in func(vhost string) bool) error {
	queues, err := b.Broker.Queues(ctx)
	if door.IsPartial(err) {
		b.log.Warn("the policies apply later to the queues of a shard that is not open", "error", err)
	} else if err != nil {
		return err
	}
	for i := range queues {
		vhost, name := fullname.Split(queues[i].Name)
		if !in(vhost) || vhost == InternalVhost {
			continue
		}
		if err := b.applyTo(ctx, queues[i].Name, b.match(vhost, Queues, name)); err != nil && surgetank.CodeOf(err) != surgetank.CodeNotFound {
			return surgetank.Errorf(surgetank.CodeOf(err), "the policies hold, but queue %.60q could not be given its settings: %w; put the policy again, or restart the server", name, err)
		}
	}
	return nil
}

func (b *Broker) applyTo(ctx context.Context, full string, p *compiled) error {
	defer b.lock(full)()
	for try := 1; ; try++ {
		b.records.Refresh()
		o, has := b.owned(full)
		if p == nil && (!has || o.pending) {
			return nil
		}
		now, o, err := b.declaration(ctx, full, o, p)
		if err == nil {
			_, err = b.set(ctx, now, o, o.config, pauseOf(&now.Config), p)
		}
		next, again := b.raced(full, p, err, try)
		if !again {
			return err
		}
		p = next
	}
}

// declaration returns a queue and its declaration, of which o is recorded. If a policy covers the
// queue for the first time, declaration stores the pending record.
func (b *Broker) declaration(ctx context.Context, full string, o own, p *compiled) (surgetank.QueueInfo, own, error) {
	now, err := b.Broker.Queue(ctx, full)
	if err != nil || o.id == now.ID && !o.pending {
		return now, o, err
	}
	if o.id != now.ID && p != nil {
		o = own{id: now.ID, pending: true, version: o.version}
		if o.version, err = b.saveOwn(ctx, full, o, o.version); err != nil {
			return now, o, err
		}
		// A declaration that has not seen the pending record was made before this read.
		now, err = b.Broker.Queue(ctx, full)
	}
	o.config = now.Config
	return now, o, err
}

// errRaced reports that another Broker over the same plain broker has changed a queue's declaration
// at the same time.
var errRaced = surgetank.Errorf(surgetank.CodeBusy, "the queue is changed by many programs at once; try again")

// raced reports whether a change of a queue must be made again, and with which policy. Another
// Broker can have changed the policies or the queue's declaration at the same time, so that one of
// the two changes hides the other. The caller has locked the queue's stripe.
func (b *Broker) raced(full string, p *compiled, err error, try int) (now *compiled, again bool) {
	if err != nil && err != errRaced || try == metacache.Tries {
		return nil, false
	}
	b.records.Refresh()
	vhost, name := fullname.Split(full)
	now = b.match(vhost, Queues, name)
	return now, now != p || err == errRaced
}
