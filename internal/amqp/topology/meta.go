package topology

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strings"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/fullname"
	"github.com/surgetank/surgetank/internal/policy"
)

// The durable part of the topology is metadata of the broker. There is one small JSON record for
// each durable exchange, for each binding between durable ends, and for each queue with more
// settings than durability. A record's name is a hash of its subject, so that names of any length
// and content fit.
//
// A binding's record has the ids of its exchanges and the number of its queue. A new exchange or
// queue with an old name gets a new id or number. So one durable step removes an exchange or a
// queue: the records of its bindings are invalid from then on. sweep removes them later. After a
// crash, load drops the remaining ones.
const (
	metaNamespace = "amqp"
	metaVersion   = 1
	metaExchange  = "x."
	metaQueue     = "q."
	metaBinding   = "b."
)

type exchangeRecord struct {
	Version  int    `json:"v"`
	Vhost    string `json:"vhost"`
	Name     string `json:"name"`
	ID       uint64 `json:"id"`
	Kind     string `json:"kind"`
	Auto     bool   `json:"auto_delete,omitempty"`
	Internal bool   `json:"internal,omitempty"`
	Args     []byte `json:"args,omitempty"`
}

type queueRecord struct {
	Version int    `json:"v"`
	Full    string `json:"queue"`
	ID      uint64 `json:"id"`
	Auto    bool   `json:"auto_delete,omitempty"`
	Args    []byte `json:"args,omitempty"`
}

type bindingRecord struct {
	Version  int    `json:"v"`
	Vhost    string `json:"vhost"`
	Source   string `json:"source"`
	SourceID uint64 `json:"source_id,omitempty"`
	Queue    string `json:"queue,omitempty"`
	To       string `json:"to,omitempty"`
	DestID   uint64 `json:"dest_id,omitempty"`
	Key      string `json:"key"`
	Args     []byte `json:"args,omitempty"`
}

// hashName returns a record's name. Each part is hashed with its length, so that parts are not
// confused.
func hashName(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write([]byte(p))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// bindingID returns the id of a binding: a hash of its 4-tuple and its virtual host.
func bindingID(vhost, source, kind, dest, key string, args wire.Table) string {
	return hashName(vhost, source, kind, dest, key, string(args))
}

func (vh *Vhost) saveRecord(name string, record any) error {
	b, err := json.Marshal(record)
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInternal, "an AMQP record could not be encoded: %w", err)
	}
	return vh.env.Broker.SetMeta(vh.env.Context, metaNamespace, name, b)
}

func (vh *Vhost) saveExchange(x *Exchange) error {
	return vh.saveRecord(metaExchange+hashName(vh.Name, x.Name), exchangeRecord{metaVersion, vh.Name, x.Name, x.id, x.kind,
		x.autoDelete, x.Internal, x.args})
}

func (vh *Vhost) saveQueue(q *Queue) error {
	return vh.saveRecord(metaQueue+hashName(q.Full), queueRecord{metaVersion, q.Full, q.ID, q.own().AutoDelete, q.own().Args})
}

func (vh *Vhost) saveBinding(b *binding) error {
	r := bindingRecord{Version: metaVersion, Vhost: vh.Name, Source: b.source.Name, SourceID: b.source.id, Key: b.key, Args: b.args}
	if b.queue != nil {
		r.Queue, r.DestID = b.queue.Name, b.queue.ID
	} else {
		r.To, r.DestID = b.to.Name, b.to.id
	}
	return vh.saveRecord(metaBinding+b.id, r)
}

func (vh *Vhost) dropRecord(name string) error {
	return vh.env.Broker.SetMeta(vh.env.Context, metaNamespace, name, nil)
}

// trash has items that were removed from memory, and whose records must be removed too.
type trash struct {
	exchanges []string // names
	queues    []string // broker names
	bindings  []string // ids
}

// sweep removes the records of trash. It keeps a record whose name is in use again. A failure is
// only logged: the remaining record is invalid, and the next start drops it.
func (vh *Vhost) sweep(t trash) {
	for _, name := range t.exchanges {
		unlock := vh.lock(exchangeStripe(name))
		if vh.Exchange(name) == nil {
			vh.logged("exchange", name, vh.dropRecord(metaExchange+hashName(vh.Name, name)))
		}
		unlock()
	}
	for _, full := range t.queues {
		_, name := fullname.Split(full)
		unlock := vh.lock(queueStripe(name))
		if vh.Known(name) == nil {
			vh.logged("queue", name, vh.dropRecord(metaQueue+hashName(full)))
		}
		unlock()
	}
	if len(t.bindings) == 0 {
		return
	}
	vh.env.Background(func() {
		for _, id := range t.bindings {
			if vh.env.Context.Err() != nil {
				return
			}
			vh.sweepBinding(id)
		}
	})
}

func (vh *Vhost) sweepBinding(id string) {
	defer vh.lock(id)()
	vh.mu.RLock()
	alive := vh.hasBinding(id)
	vh.mu.RUnlock()
	if !alive {
		vh.logged("binding", id, vh.dropRecord(metaBinding+id))
	}
}

// hasBinding reports whether a binding with the id exists. The caller holds mu.
func (vh *Vhost) hasBinding(id string) bool {
	for _, x := range vh.exchanges {
		if _, ok := x.bindings[id]; ok {
			return true
		}
	}
	return false
}

func (vh *Vhost) logged(what, name string, err error) {
	if err != nil {
		vh.env.Log.Warn("an AMQP record could not be removed; it is invalid and will be dropped at the next start",
			"what", what, "name", name, "vhost", vh.Name, "err", err)
	}
}

// load builds the topology from the broker's queues and this door's records.
func (s *Registry) load(ctx context.Context) error {
	queues, err := s.Broker.Queues(ctx)
	if err != nil {
		return err
	}
	meta, err := s.Broker.Meta(ctx, metaNamespace)
	if err != nil {
		return err
	}
	for _, v := range s.Auth.Vhosts() {
		s.byName[v.Name] = newVhost(s.Env, v.Name)
	}
	for _, info := range queues {
		name, _ := fullname.Split(info.Name)
		if vh := s.byName[name]; vh != nil {
			vh.adopt(info)
		} else if _, of := fullname.Split(info.Name); name == policy.InternalVhost && s.byName[of] == nil {
			if _, err := s.Broker.DeleteQueue(ctx, info.Name, surgetank.DeleteOptions{}); err != nil {
				return err // the passage of a deleted virtual host
			}
		}
	}
	var void []string
	for _, l := range []struct {
		prefix string
		load   func(value []byte) (used bool, err error)
	}{{metaExchange, s.loadExchange}, {metaQueue, s.loadQueue}, {metaBinding, s.loadBinding}} {
		for name, value := range meta.Bytes() {
			if !strings.HasPrefix(name, l.prefix) {
				continue
			}
			used, err := l.load(value)
			if err != nil {
				return surgetank.Errorf(surgetank.CodeCorrupt, "the AMQP record %q cannot be read: %w; it was written by a newer version, or is damaged", name, err)
			}
			if !used {
				void = append(void, name)
			}
		}
	}
	for _, name := range void {
		if err := s.Broker.SetMeta(ctx, metaNamespace, name, nil); err != nil {
			return err
		}
	}
	return nil
}

// decodeRecord decodes a record, and checks that this version can read it.
func decodeRecord(b []byte, into any, version *int, args *[]byte) error {
	if err := json.Unmarshal(b, into); err != nil {
		return err
	}
	if *version != metaVersion {
		return surgetank.Errorf(surgetank.CodeCorrupt, "its version is %d and this program knows %d", *version, metaVersion)
	}
	return wire.Table(*args).Validate()
}

func (s *Registry) loadExchange(b []byte) (bool, error) {
	var r exchangeRecord
	if err := decodeRecord(b, &r, &r.Version, &r.Args); err != nil {
		return false, err
	}
	vh := s.byName[r.Vhost]
	if vh == nil || vh.exchanges[r.Name] != nil {
		return false, nil
	}
	x := newExchange(r.Name, r.Kind, true, r.Auto, r.Internal, r.Args)
	x.id = r.ID
	vh.addExchange(x)
	return true, nil
}

func (s *Registry) loadQueue(b []byte) (bool, error) {
	var r queueRecord
	if err := decodeRecord(b, &r, &r.Version, &r.Args); err != nil {
		return false, err
	}
	vhostName, name := fullname.Split(r.Full)
	vh := s.byName[vhostName]
	if vh == nil || vh.queues[name] != nil && vh.queues[name].ID != r.ID {
		return false, nil
	}
	a, err := translate.ParseQueueArgs(translate.QueueAttrs{Durable: true, AutoDelete: r.Auto, Args: r.Args}, translate.DescribeQueue(name, vhostName))
	if err != nil {
		return false, err
	}
	if vh.queues[name] == nil { // the queue was deleted, but its dead letters can still be in the passage
		if a = vh.under(name, a); a.HasDLX {
			vh.retire(r.Full, a)
		}
		return a.HasDLX, nil
	}
	vh.queues[name].setDeclared(&a)
	return true, nil
}

func (s *Registry) loadBinding(b []byte) (bool, error) {
	var r bindingRecord
	if err := decodeRecord(b, &r, &r.Version, &r.Args); err != nil {
		return false, err
	}
	vh := s.byName[r.Vhost]
	if vh == nil {
		return false, nil
	}
	src := vh.exchanges[r.Source]
	if src == nil || src.id != r.SourceID {
		return false, nil
	}
	bd := &binding{source: src, key: r.Key, args: r.Args, durable: true}
	if r.Queue != "" {
		bd.queue = vh.queues[r.Queue]
		if bd.queue == nil || bd.queue.ID != r.DestID {
			return false, nil
		}
		bd.id = bindingID(vh.Name, src.Name, "queue", r.Queue, r.Key, r.Args)
	} else {
		bd.to = vh.exchanges[r.To]
		if bd.to == nil || bd.to.id != r.DestID {
			return false, nil
		}
		bd.id = bindingID(vh.Name, src.Name, "exchange", r.To, r.Key, r.Args)
	}
	if err := bd.read(); err != nil {
		return false, err
	}
	vh.addBinding(bd)
	return true, nil
}
