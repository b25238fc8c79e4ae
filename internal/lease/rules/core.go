package rules

import (
	"slices"
	"time"
)

// Core decides for one node. Only one goroutine may use it.
type Core struct {
	cfg  Config
	now  time.Duration
	wall time.Time
	acts []Action

	connected bool
	synced    bool          // a watch has passed all present values
	echo      time.Duration // time of the newest echo
	hasEcho   bool
	readyAt   time.Duration // no log is acquired before

	beats    uint64        // number of the newest heartbeat
	nextBeat time.Duration // time of the next one
	stored   time.Duration // time of the newest answer that a heartbeat was stored
	watchAt  time.Duration // time of the newest begin or request of a watch

	snapshot map[string]bool // keys that the new watch has passed; nil: it is complete
	newest   uint64          // newest revision that the watch has passed

	keys     map[string]*key // by log
	names    []string        // of keys, sorted
	peers    map[string]*peer
	ids      []string // of peers, sorted
	flights  map[uint64]*flight
	order    []uint64 // of flights, oldest first
	lastID   uint64
	changed  time.Duration // time of the newest change of an owner or of the set of nodes
	version  uint64
	draining bool
	closing  bool
}

// flight is a write without an answer.
type flight struct {
	key  *key // nil: a heartbeat
	kind kind
	sent time.Duration
	base uint64 // the key's newest known revision at that time
	rec  Record
}

type kind int

const (
	acquire kind = iota
	renew
	free
)

// New returns a core. It does nothing before Connected and the first watch.
func New(cfg Config) *Core {
	return &Core{cfg: cfg, keys: map[string]*key{}, peers: map[string]*peer{}, flights: map[uint64]*flight{}}
}

// Step handles events and does all work that is due. now is monotonic, and never less than before.
// wall is for people only.
func (c *Core) Step(now time.Duration, wall time.Time, events ...Event) []Action {
	c.now, c.wall = now, wall
	for _, e := range events {
		c.handle(e)
	}
	c.expire()
	c.lapse()
	if c.connected {
		c.beat()
		c.suspect()
		c.renewAll()
		c.freeAll()
		c.findVacant()
		c.acquireAll()
		c.move()
		c.checkWatch()
	}
	acts := c.acts
	c.acts = nil
	return acts
}

func (c *Core) handle(e Event) {
	switch e := e.(type) {
	case Watching:
		c.snapshot, c.newest, c.watchAt = map[string]bool{}, 0, c.now
	case Complete:
		c.complete()
	case Changed:
		c.change(e)
	case Answered:
		c.answered(e)
	case Pinged:
		c.pinged(e)
	case Connected:
		if e.Now && !c.connected {
			c.nextBeat = c.now
		}
		c.connected = e.Now
	case Campaign:
		if k := c.key(e.Log); !k.wanted && !c.closing {
			k.wanted, c.nextBeat = true, c.now
		}
	case Withdraw:
		if k := c.key(e.Log); k.wanted {
			k.wanted = false
			c.end(k, ReasonWithdrawn, "")
		}
	case Resign:
		if k := c.key(e.Log); k.term == e.Term {
			c.end(k, ReasonResigned, k.leaveTo)
		}
	case Move:
		if k := c.key(e.Log); k.term != 0 && !k.leaving && e.To != c.cfg.ID {
			c.leave(k, e.To)
		}
	case Announce:
		if k := c.key(e.Log); k.term != 0 && k.term == e.Term && k.data != e.Data {
			k.data, k.dirty = e.Data, true
		}
	case Drain:
		if c.draining != e.On {
			c.draining, c.nextBeat = e.On, c.now
		}
	case Close:
		c.close()
	}
}

func (c *Core) act(a Action) { c.acts = append(c.acts, a) }

// write sends a record. k is nil for a heartbeat.
func (c *Core) write(k *key, kd kind, expect uint64, rec Record) {
	c.lastID++
	rec.Sent = c.now
	f := &flight{key: k, kind: kd, sent: c.now, rec: rec}
	c.flights[c.lastID] = f
	c.order = append(c.order, c.lastID)
	name := NodeKey(c.cfg.ID)
	if k != nil {
		name = LogKey(k.log)
		k.flight, f.base = f, k.rev
	}
	c.act(Write{c.lastID, name, expect, rec})
}

// expire treats writes without an answer as failed.
func (c *Core) expire() {
	for len(c.order) > 0 {
		id := c.order[0]
		f := c.flights[id]
		if f != nil && c.now-f.sent < c.cfg.Answer {
			return
		}
		if f != nil {
			c.answered(Answered{ID: id, Outcome: Failed})
		}
		c.order = c.order[1:]
	}
}

func (c *Core) answered(e Answered) {
	f := c.flights[e.ID]
	if f == nil {
		return
	}
	delete(c.flights, e.ID)
	switch {
	case f.key == nil:
		if e.Outcome == Stored {
			c.stored = c.now
		}
	case f.key.flight == f:
		c.settle(f, e)
	}
}

// beat writes the node's key.
func (c *Core) beat() {
	if c.closing || c.now < c.nextBeat {
		return
	}
	c.beats++
	c.nextBeat = max(c.nextBeat+c.cfg.Heartbeat, c.now+c.cfg.Heartbeat/2)
	c.write(nil, renew, Any, c.self())
}

// self returns the record of the node's key.
func (c *Core) self() Record {
	return Record{Node: c.cfg.ID, Name: c.cfg.Name, Address: c.cfg.Address, Beat: c.beats, Candidate: c.candidate(), Draining: c.draining, Gone: c.closing}
}

// candidate reports whether this node wants logs.
func (c *Core) candidate() bool {
	return slices.ContainsFunc(c.names, func(n string) bool { return c.keys[n].wanted })
}

// able reports whether this node can write to the bucket and sees the result.
func (c *Core) able() bool {
	return c.connected && c.synced && c.hasEcho && c.now-c.echo <= c.cfg.able()
}

// checkWatch replaces a watch that shows no echo of stored heartbeats.
func (c *Core) checkWatch() {
	since := max(c.echo, c.watchAt)
	if c.snapshot == nil && !c.synced || c.now-since < 4*c.cfg.Heartbeat || c.stored <= since+c.cfg.Heartbeat {
		return
	}
	c.watchAt = c.now
	c.act(Rewatch{})
}

// close ends all terms and says goodbye.
func (c *Core) close() {
	if c.closing {
		return
	}
	c.closing = true
	for _, n := range c.names {
		k := c.keys[n]
		k.wanted = false
		c.end(k, ReasonClosed, "")
	}
	if c.connected {
		c.freeAll()
		c.beats++
		c.write(nil, renew, Any, c.self())
	}
}

// Idle reports whether nothing waits for an answer.
func (c *Core) Idle() bool {
	return len(c.flights) == 0 && !slices.ContainsFunc(c.names, func(n string) bool { return c.keys[n].freeing })
}

// Terms returns the number of logs that this node owns.
func (c *Core) Terms() (n int) {
	for _, name := range c.names {
		if c.keys[name].term != 0 {
			n++
		}
	}
	return n
}

// Drained reports whether the node acquires no log.
func (c *Core) Drained() bool { return c.draining || c.closing }

// Able reports whether this node can write to the bucket and sees the result.
func (c *Core) Able() bool { return c.able() }

// Version changes when Owners or Peers return something new, except Peer.Silent.
func (c *Core) Version() uint64 { return c.version }
