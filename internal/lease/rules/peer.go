package rules

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// peer is another node.
type peer struct {
	id      string
	rev     uint64
	rec     *Record // newest value of the node's key; nil: unknown
	removed bool    // the key was removed
	heard   bool    // since the newest echo
	proved  bool    // heard since the count of silence began at zero for all nodes
	silent  time.Duration
	dead    bool
	refused int           // pings without a responder since the node was heard
	pingAt  time.Duration // no ping before
}

// gone reports whether the node has closed, which is final.
func (p *peer) gone() bool { return p.rec != nil && p.rec.Gone }

// changeNode handles a change of a node's key.
func (c *Core) changeNode(e Changed) {
	id, ok := strings.CutPrefix(e.Key, nodePrefix)
	switch {
	case !ok:
	case id == c.cfg.ID:
		if e.Record != nil {
			c.echoed(e.Record.Beat)
		}
	case e.Record == nil:
		// The node could not write for the time to live. Perhaps no node could. So its silence
		// decides.
		if p := c.peers[id]; p != nil && e.Rev > p.rev {
			p.rev, p.removed = e.Rev, true
		}
	default:
		p := c.peer(id)
		if e.Rev <= p.rev || p.gone() {
			return
		}
		was := p.rec
		p.rev, p.rec, p.removed = e.Rev, e.Record, false
		if was == nil || was.Candidate != e.Record.Candidate || was.Draining != e.Record.Draining || was.Gone != e.Record.Gone || was.Address != e.Record.Address {
			c.changed = c.now
			c.version++
		}
		c.hear(id)
		if p.gone() {
			c.die(p)
		}
	}
}

// peer returns the state of a node.
func (c *Core) peer(id string) *peer {
	p := c.peers[id]
	if p == nil {
		p = &peer{id: id}
		c.peers[id] = p
		i, _ := slices.BinarySearch(c.ids, id)
		c.ids = slices.Insert(c.ids, i, id)
		c.version++
	}
	return p
}

// hear records a sign of life.
func (c *Core) hear(id string) {
	p := c.peer(id)
	p.proved = p.proved || c.snapshot == nil // a present value can be old
	if p.heard, p.silent, p.refused = true, 0, 0; p.dead && !p.gone() {
		p.dead = false
		c.changed = c.now
		c.version++
	}
}

// die declares a node dead.
func (c *Core) die(p *peer) {
	if !p.dead {
		p.dead = true
		c.changed = c.now
		c.version++
	}
}

// echoed handles an echo of this node's heartbeat. It counts the silence of all others.
func (c *Core) echoed(beat uint64) {
	gap := c.now - c.echo
	counts := c.hasEcho && gap <= c.cfg.able()
	if !counts { // the other nodes' next heartbeats come first
		c.readyAt = c.now + 2*c.cfg.Heartbeat
	}
	c.hasEcho, c.echo = true, c.now
	for _, id := range slices.Clone(c.ids) {
		p := c.peers[id]
		switch {
		case !counts:
			p.silent, p.refused, p.proved = 0, 0, false
			if p.dead && !p.gone() {
				p.dead = false
				c.version++
			}
		case !p.heard:
			if p.silent += min(gap, c.cfg.Heartbeat); p.silent >= c.cfg.DeadAfter {
				c.die(p)
			}
		}
		if p.heard = false; p.dead && (p.removed || p.rec == nil) {
			c.forget(p)
		}
	}
	c.decide(beat)
}

// forget removes a dead node that no key names.
func (c *Core) forget(p *peer) {
	if slices.ContainsFunc(c.names, func(n string) bool { r := c.keys[n].rec; return r != nil && r.Node == p.id }) {
		return
	}
	delete(c.peers, p.id)
	i, _ := slices.BinarySearch(c.ids, p.id)
	c.ids = slices.Delete(c.ids, i, i+1)
	c.version++
}

// suspect pings silent nodes.
func (c *Core) suspect() {
	if !c.able() || c.closing {
		return
	}
	for _, id := range c.ids {
		if p := c.peers[id]; !p.dead && p.silent >= c.cfg.pingAfter() && c.now >= p.pingAt {
			p.pingAt = c.now + c.cfg.Heartbeat/2
			c.act(Ping{id})
		}
	}
}

// pinged handles the result of a ping. A second one without a responder counts only if this node
// can write to the bucket: then the cluster's servers know each other's clients.
func (c *Core) pinged(e Pinged) {
	p := c.peers[e.Node]
	switch {
	case p == nil || p.silent < c.cfg.pingAfter(): // heard meanwhile
	case !e.NoResponders:
		p.refused = 0
	default:
		if p.refused++; p.refused >= 2 && c.able() {
			c.die(p)
		}
	}
}

// alive reports whether a node writes heartbeats.
func (c *Core) alive(id string) bool {
	if id == c.cfg.ID {
		return true
	}
	p := c.peers[id]
	return p != nil && !p.dead
}

// heirs returns the nodes that can own further logs, sorted.
func (c *Core) heirs() []string {
	var ids []string
	for _, id := range c.ids {
		if p := c.peers[id]; !p.dead && p.proved && p.rec != nil && p.rec.Candidate && !p.rec.Draining && p.silent < c.cfg.DeadAfter/2 {
			ids = append(ids, id)
		}
	}
	if c.candidate() && !c.draining {
		i, _ := slices.BinarySearch(ids, c.cfg.ID)
		ids = slices.Insert(ids, i, c.cfg.ID)
	}
	return ids
}

// loads returns the number of logs of each node.
func (c *Core) loads() map[string]int {
	m := map[string]int{}
	for _, n := range c.names {
		if r := c.keys[n].rec; r != nil && r.Node != "" {
			m[r.Node]++
		}
	}
	return m
}

// Peers returns all nodes, this one included, sorted by name and id.
func (c *Core) Peers() []Peer {
	loads := c.loads()
	list := []Peer{{ID: c.cfg.ID, Name: c.cfg.Name, Address: c.cfg.Address, Candidate: c.candidate(), Draining: c.draining, Logs: loads[c.cfg.ID]}}
	for _, id := range c.ids {
		p := c.peers[id]
		o := Peer{ID: id, Dead: p.dead, Silent: p.silent, Logs: loads[id]}
		if r := p.rec; r != nil {
			o.Name, o.Address, o.Candidate, o.Draining = r.Name, r.Address, r.Candidate, r.Draining
		}
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Peer) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list
}
