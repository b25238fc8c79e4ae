package rules

import (
	"slices"
	"time"
)

// key is the state of a log's key.
type key struct {
	log    string
	rev    uint64  // newest known revision
	rec    *Record // its value; nil: removed, or never written
	last   string  // the owner before rec was free or removed
	wanted bool

	term    uint64        // 0: this node is not the owner
	renewed time.Duration // when the newest confirmed write was sent
	since   int64
	data    string
	dirty   bool // data has changed

	leaving bool // the owner was asked to resign
	leaveBy time.Duration
	leaveTo string

	flight  *flight
	doubt   bool          // an earlier write without an answer can be stored, or was
	retryAt time.Duration // no write before
	asked   uint64        // the revision in question after a doubtful refusal; needs is not 0
	needs   uint64        // the heartbeat whose echo decides; 0: no question

	zero    bool   // the next acquisition expects that the key does not exist
	freeing bool   // a free record must be written
	freeTo  string // its Next

	vacant      bool
	vacantSince time.Duration
	filledAt    time.Duration // end of the newest vacancy
	heir        string        // first heir in the newest vacancy; "": it was not calculated
}

// key returns the state of a log's key.
func (c *Core) key(log string) *key {
	k := c.keys[log]
	if k == nil {
		k = &key{log: log}
		c.keys[log] = k
		i, _ := slices.BinarySearch(c.names, log)
		c.names = slices.Insert(c.names, i, log)
	}
	return k
}

// change handles a value that the watch shows.
func (c *Core) change(e Changed) {
	c.newest = max(c.newest, e.Rev)
	if c.snapshot != nil {
		c.snapshot[e.Key] = true
	}
	log, ok := logOf(e.Key)
	if !ok {
		c.changeNode(e)
		return
	}
	k := c.key(log)
	if e.Rev <= k.rev {
		return
	}
	mine := e.Record != nil && e.Record.Node == c.cfg.ID
	switch {
	case mine && k.term != 0:
		k.renewed = max(k.renewed, e.Record.Sent)
	case mine && e.Record.Term == 0 && k.wanted && !c.draining && !k.freeing:
		c.set(k, e.Rev, e.Record)
		c.begin(k, e.Record.Sent)
		return
	case k.term != 0:
		c.lose(k, ReasonReplaced)
	}
	c.set(k, e.Rev, e.Record)
}

// set records a newer value of a key.
func (c *Core) set(k *key, rev uint64, rec *Record) {
	was := c.owner(k)
	switch {
	case rec != nil && rec.Node == "":
		k.last = rec.Prev
	case rec == nil && k.rec != nil && k.rec.Node != "":
		k.last = k.rec.Node
	}
	k.rev, k.rec = rev, rec
	k.doubt, k.zero, k.needs = false, false, 0
	if rec != nil && rec.Node != c.cfg.ID && rec.Node != "" {
		c.hear(rec.Node)
	}
	if is := c.owner(k); is != was {
		if is.Node != was.Node {
			c.changed = c.now
		}
		if is.Node == "" {
			k.vacant = false // the new vacancy has its own beginning
		}
		c.version++
	}
}

// begin begins a term. The key's record is the first one of the term.
func (c *Core) begin(k *key, sent time.Duration) {
	k.term, k.renewed, k.since = k.rev, sent, k.rec.Since
	k.data, k.dirty, k.leaving, k.leaveTo, k.retryAt = "", false, false, "", 0
	c.act(Began{k.log, k.term})
}

// lose ends a term.
func (c *Core) lose(k *key, why Reason) {
	c.act(Lost{k.log, k.term, why})
	k.term, k.needs, k.leaving, k.leaveTo = 0, 0, false, ""
	if k.flight != nil {
		k.flight, k.doubt = nil, true
	}
}

// end ends a term, if there is one, and frees the key. A write of an acquisition that waits for its
// answer is undone when it turns out to be stored.
func (c *Core) end(k *key, why Reason, to string) {
	if k.term == 0 {
		return
	}
	c.lose(k, why)
	k.freeing, k.freeTo, k.retryAt = true, to, 0
}

// settle handles the answer to the present write of a key.
func (c *Core) settle(f *flight, e Answered) {
	k := f.key
	k.flight = nil
	switch e.Outcome {
	case Failed:
		k.doubt, k.retryAt = k.doubt || f.base == k.rev, c.now+c.cfg.Heartbeat
	case Refused:
		c.refused(k, f)
	case Stored:
		if e.Rev < k.rev {
			return // the watch has shown a newer value
		}
		if e.Rev > k.rev {
			c.set(k, e.Rev, &f.rec)
		}
		switch {
		case f.kind == free:
			k.freeing = false
		case k.term != 0:
			k.renewed = max(k.renewed, f.sent)
		case f.kind == acquire && k.wanted && !c.draining && !k.freeing:
			c.begin(k, f.sent)
		}
	}
}

// refused handles a refusal.
func (c *Core) refused(k *key, f *flight) {
	if f.base != k.rev {
		return // the watch has shown a newer value meanwhile
	}
	switch {
	case f.kind == acquire:
		// Another node was faster, and the watch is about to show it. Or the key vanished, and the
		// watch did not show it. So the next try expects that the key does not exist.
		k.zero, k.retryAt = !k.zero, c.now+c.cfg.Heartbeat
	case f.kind == free:
		k.freeing, k.retryAt = k.doubt, c.now+c.cfg.Heartbeat
	case k.term != 0 && !k.doubt:
		c.lose(k, ReasonRefused)
	case k.term != 0:
		k.asked, k.needs = k.rev, c.beats+1
	}
}

// decide ends the terms whose refused renewals did not turn out to be stored before. The watch has
// shown the echo of a heartbeat.
func (c *Core) decide(beat uint64) {
	for _, n := range c.names {
		if k := c.keys[n]; k.needs != 0 && beat >= k.needs {
			if k.needs = 0; k.term != 0 && k.rev == k.asked {
				c.lose(k, ReasonRefused)
			}
		}
	}
}

// lapse ends the terms that were not renewed or not resigned in time.
func (c *Core) lapse() {
	for _, n := range c.names {
		switch k := c.keys[n]; {
		case k.term == 0:
		case c.now-k.renewed >= c.cfg.TTL:
			c.lose(k, ReasonLapsed)
		case k.leaving && c.now >= k.leaveBy:
			c.end(k, ReasonLate, k.leaveTo)
		}
	}
}

// renewAll renews the keys that are due.
func (c *Core) renewAll() {
	for _, n := range c.names {
		k := c.keys[n]
		if k.term == 0 || k.flight != nil || k.needs != 0 || c.now < k.retryAt || !k.dirty && c.now < k.renewed+c.cfg.Renew {
			continue
		}
		k.dirty = false
		c.write(k, renew, k.rev, Record{Node: c.cfg.ID, Name: c.cfg.Name, Address: c.cfg.Address, Term: k.term, Since: k.since, Data: k.data})
	}
}

// freeAll writes free records.
func (c *Core) freeAll() {
	for _, n := range c.names {
		k := c.keys[n]
		mine := k.rec != nil && k.rec.Node == c.cfg.ID && k.term == 0
		switch {
		case !mine:
			k.freeing = k.freeing && k.flight != nil
		case !k.wanted || c.draining: // a late acquisition
			k.freeing = true
		}
		if !k.freeing || !mine || k.flight != nil || c.now < k.retryAt {
			continue
		}
		c.write(k, free, k.rev, Record{Prev: c.cfg.ID, Next: k.freeTo})
	}
}

// complete handles the end of a new watch's present values. Keys that were not among the values do
// not exist any more, and nobody has shown their removal. A term is not ended here, because its key
// can be newer than the watch's beginning. Its next renewal decides.
func (c *Core) complete() {
	for _, n := range c.names {
		k := c.keys[n]
		if c.snapshot == nil || c.snapshot[LogKey(n)] || k.rec == nil || k.term != 0 || k.rev > c.newest {
			continue
		}
		c.set(k, k.rev, nil)
		k.zero = true
	}
	c.snapshot, c.synced = nil, true
}

// owner returns a description of a key's owner.
func (c *Core) owner(k *key) Owner {
	r := k.rec
	if r == nil || r.Node == "" {
		return Owner{}
	}
	o := Owner{Node: r.Node, Name: r.Name, Address: r.Address, Term: r.Term, Since: time.UnixMilli(r.Since), Data: r.Data}
	if o.Term == 0 {
		o.Term = k.rev
	}
	return o
}

// Owners returns the known logs and their owners.
func (c *Core) Owners() map[string]Owner {
	m := make(map[string]Owner, len(c.names))
	for _, n := range c.names {
		m[n] = c.owner(c.keys[n])
	}
	return m
}
