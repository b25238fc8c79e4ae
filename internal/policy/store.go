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
	meta, err := inner.Meta(ctx, Namespace)
	if err != nil {
		return nil, err
	}
	s := &set{byVhost: map[string][]*compiled{}}
	var void []string
	for key, value := range meta.Bytes() {
		used := true
		switch {
		case strings.HasPrefix(key, policyPrefix):
			used, err = p.loadPolicy(s, value)
		case strings.HasPrefix(key, ownPrefix):
			err = p.loadOwn(value)
		default:
			err = fmt.Errorf("this version knows no such record")
		}
		if err != nil {
			return nil, surgetank.Errorf(surgetank.CodeCorrupt, "the stored policy record %q cannot be used: %w; run the version that wrote it, or restore a backup", key, err)
		}
		if !used {
			void = append(void, key)
		}
	}
	for _, list := range s.byVhost {
		slices.SortFunc(list, (*compiled).before)
	}
	p.all.Store(s)
	for _, key := range void {
		if err := inner.SetMeta(ctx, Namespace, key, nil); err != nil {
			return nil, err
		}
	}
	return p, p.applyAll(ctx)
}

// loadPolicy adds a policy to s. A policy of a deleted virtual host is ignored.
func (b *Broker) loadPolicy(s *set, value []byte) (used bool, err error) {
	var r policyRecord
	if err := decode(value, &r, &r.Version); err != nil {
		return false, err
	}
	if id, exists := b.auth.VhostID(r.Vhost); !exists || id != r.VhostID {
		return false, nil
	}
	c, err := compile(r.Policy)
	if err != nil {
		return false, err
	}
	c.vhostID = r.VhostID
	s.byVhost[r.Vhost] = append(s.byVhost[r.Vhost], c)
	return true, nil
}

func (b *Broker) loadOwn(value []byte) error {
	var r ownRecord
	if err := decode(value, &r, &r.Version); err != nil {
		return err
	}
	c, err := settings.Decode(r.Settings)
	if err != nil {
		return err
	}
	c.DeadLetter = r.DeadLetter
	b.under[r.Queue] = own{id: r.ID, config: c}
	return nil
}

func (b *Broker) saveOwn(ctx context.Context, queue string, o own) error {
	r := ownRecord{Version: recordVersion, Queue: queue, ID: o.id, DeadLetter: o.config.DeadLetter}
	c := o.config
	c.DeadLetter = ""
	r.Settings = settings.Encode(c)
	return b.save(ctx, ownKey(queue), r)
}

func (b *Broker) save(ctx context.Context, key string, record any) error {
	v, err := json.Marshal(record)
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInternal, "a policy record could not be encoded: %w", err)
	}
	return b.Broker.SetMeta(ctx, Namespace, key, v)
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
	if !exists || id != list[0].vhostID {
		return nil
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
	next := slices.Clone(b.in(p.Vhost))
	at := slices.IndexFunc(next, func(o *compiled) bool { return o.Name == p.Name })
	if at >= 0 {
		next = slices.Delete(next, at, at+1)
	} else if len(next) >= MaxPolicies {
		return false, surgetank.Errorf(surgetank.CodeTooLarge, "virtual host %.60q has %d policies, which is the most; remove some", p.Vhost, len(next))
	}
	if err := b.save(ctx, policyKey(p.Vhost, p.Name), policyRecord{recordVersion, id, c.Policy}); err != nil {
		return false, err
	}
	next = append(next, c)
	slices.SortFunc(next, (*compiled).before)
	return at < 0, b.replace(ctx, p.Vhost, next)
}

// DeletePolicy removes a policy. Its queues get their declared settings back, or those of another
// policy.
func (b *Broker) DeletePolicy(ctx context.Context, vhost, name string) error {
	b.change.Lock()
	defer b.change.Unlock()
	if _, err := b.GetPolicy(vhost, name); err != nil {
		return err
	}
	if err := b.Broker.SetMeta(ctx, Namespace, policyKey(vhost, name), nil); err != nil {
		return err
	}
	next := slices.DeleteFunc(slices.Clone(b.in(vhost)), func(c *compiled) bool { return c.Name == name })
	return b.replace(ctx, vhost, next)
}

// replace swaps and applies a virtual host's policies. The caller holds change.
func (b *Broker) replace(ctx context.Context, vhost string, list []*compiled) error {
	next := &set{maps.Clone(b.all.Load().byVhost)}
	if len(list) == 0 {
		delete(next.byVhost, vhost)
	} else {
		next.byVhost[vhost] = list
	}
	b.gate.Lock()
	b.all.Store(next)
	b.gate.Unlock()
	err := b.apply(ctx, func(v string) bool { return v == vhost })
	b.tell()
	return err
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
	if err != nil {
		return err
	}
	ids := make(map[string]uint64, len(queues))
	for i := range queues {
		ids[queues[i].Name] = queues[i].ID
	}
	for name, o := range maps.Clone(b.under) {
		if ids[name] != o.id {
			b.forget(ctx, name)
		}
	}
	return nil
}

func (b *Broker) apply(ctx context.Context, in func(vhost string) bool) error {
	queues, err := b.Broker.Queues(ctx)
	if err != nil {
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
	_, has := b.owned(full)
	if p == nil && !has {
		return nil
	}
	defer b.lock(full)()
	now, err := b.Broker.Queue(ctx, full) // again, because it may have changed since the list was made
	if err != nil {
		return err
	}
	c := now.Config
	if o, has := b.owned(full); has && o.id == now.ID {
		c = o.config
	}
	_, err = b.set(ctx, now, c, now.Config.Paused, p)
	return err
}
