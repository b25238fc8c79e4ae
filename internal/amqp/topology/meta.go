package topology

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/amqp/wire"
	"github.com/surgetank/surgetank/internal/door"
	"github.com/surgetank/surgetank/internal/fullname"
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

// save stores a record. expected is the version of the record that it replaces.
func (vh *Vhost) save(name string, r any, expected uint64) error {
	b, err := json.Marshal(r)
	if err != nil {
		return surgetank.Errorf(surgetank.CodeInternal, "an AMQP record could not be encoded: %w", err)
	}
	_, err = vh.registry.records.Set(vh.env.Context, name, b, expected)
	return err
}

func (vh *Vhost) exchangeKey(name string) string { return metaExchange + hashName(vh.Name, name) }

// saveExchange stores a new exchange. expected is the version of the record that it replaces.
func (vh *Vhost) saveExchange(x *Exchange, expected uint64) error {
	return vh.save(vh.exchangeKey(x.Name), exchangeRecord{metaVersion, vh.Name, x.Name, x.id, x.kind, x.autoDelete, x.Internal, x.args}, expected)
}

// saveQueue stores the settings of a queue. Only the program that created the queue does this.
func (vh *Vhost) saveQueue(q *Queue) error {
	return vh.save(metaQueue+hashName(q.Full), queueRecord{metaVersion, q.Full, q.ID, q.own().AutoDelete, q.own().Args}, door.AnyVersion)
}

func (vh *Vhost) saveBinding(b *binding) error {
	r := bindingRecord{Version: metaVersion, Vhost: vh.Name, Source: b.source.Name, SourceID: b.source.id, Key: b.key, Args: b.args}
	if b.queue != nil {
		r.Queue, r.DestID = b.queue.Name, b.queue.ID
	} else {
		r.To, r.DestID = b.to.Name, b.to.id
	}
	return vh.save(metaBinding+b.id, r, door.AnyVersion)
}

// dropRecord removes a record, if old returns true for it. A record that another program replaces
// at the same time stays.
func (vh *Vhost) dropRecord(name string, old func(r record) bool) error {
	c := vh.registry.records
	r, _ := c.Get(name)
	if r.Version == 0 || r.Err == nil && !old(r.V) {
		return nil
	}
	_, err := c.Set(vh.env.Context, name, nil, r.Version)
	if surgetank.CodeOf(err) == surgetank.CodeExists {
		return nil
	}
	return err
}

func anyRecord(record) bool { return true }

// trash has items that were removed from memory, and whose records must be removed too.
type trash struct {
	exchanges []*Exchange
	queues    []string // broker names
	bindings  []string // ids
}

// sweep removes the records of trash. It keeps a record whose name is in use again. A failure is
// only logged: the remaining record is invalid, and the next start drops it.
func (vh *Vhost) sweep(t trash) {
	for _, x := range t.exchanges {
		unlock := vh.lock(exchangeStripe(x.Name))
		vh.logged("exchange", x.Name, vh.dropRecord(vh.exchangeKey(x.Name), func(r record) bool { return r.exchange.ID == x.id }))
		unlock()
	}
	for _, full := range t.queues {
		_, name := fullname.Split(full)
		unlock := vh.lock(queueStripe(name))
		if vh.Known(name) == nil {
			vh.logged("queue", name, vh.dropRecord(metaQueue+hashName(full), anyRecord))
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
		vh.logged("binding", id, vh.dropRecord(metaBinding+id, anyRecord))
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
