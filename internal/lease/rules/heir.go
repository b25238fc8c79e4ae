package rules

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"
)

// handover is the time that the next owner of a free log has before its last owner moves another
// log.
const handover = 4 // heartbeats

// findVacant records the beginning and end of vacancies.
func (c *Core) findVacant() {
	for _, n := range c.names {
		k := c.keys[n]
		is := k.term == 0 && (k.rec == nil || k.rec.Node == "" || k.rec.Node == c.cfg.ID || !c.alive(k.rec.Node))
		switch {
		case is && !k.vacant:
			k.vacantSince, k.heir = c.now, ""
		case !is && k.vacant:
			k.filledAt = c.now
		}
		k.vacant = is
	}
}

// acquireAll acquires the vacant keys for which it is this node's turn.
//
// When many keys are vacant at once, all nodes must calculate the same heirs, although each one
// sees the acquisitions at another time. So for a while, a key that was filled counts for its first
// heir.
func (c *Core) acquireAll() {
	if !c.able() || c.draining || c.closing || c.now < c.readyAt {
		return
	}
	if !slices.ContainsFunc(c.names, func(n string) bool { return c.keys[n].vacant }) {
		return
	}
	heirs, loads := c.heirs(), map[string]int{}
	for _, n := range c.names {
		if k := c.keys[n]; !k.vacant && !c.fresh(k) && k.rec != nil {
			loads[k.rec.Node]++
		}
	}
	for _, n := range c.names {
		k := c.keys[n]
		if !k.vacant {
			if c.fresh(k) {
				loads[k.heir]++
			}
			continue
		}
		order := c.rank(k, heirs, loads)
		if len(order) == 0 {
			return
		}
		k.heir = order[0]
		loads[k.heir]++
		rank := slices.Index(order, c.cfg.ID)
		wait := time.Duration(rank) * c.cfg.Stagger
		if rank > 0 && class(k, k.heir) == 0 {
			wait += 2 * c.cfg.Heartbeat
		}
		if rank < 0 || !k.wanted || k.freeing || k.flight != nil || c.now < k.retryAt || c.now < max(k.vacantSince, c.readyAt)+wait {
			continue
		}
		expect := k.rev
		if k.zero {
			expect = 0
		}
		c.write(k, acquire, expect, Record{Node: c.cfg.ID, Name: c.cfg.Name, Address: c.cfg.Address, Since: c.wall.UnixMilli()})
	}
}

// fresh reports whether a key was filled a short time ago.
func (c *Core) fresh(k *key) bool {
	return k.heir != "" && c.now-k.filledAt < handover*c.cfg.Heartbeat
}

// rank orders the heirs of a vacant key. The first one is
//
//   - the node that the last owner has named, or
//   - the last owner itself, if nobody could renew and the key was removed, or
//   - the node with the fewest logs.
//
// A node that has resigned is last. A node of the first two kinds has more time than others.
func (c *Core) rank(k *key, heirs []string, loads map[string]int) []string {
	order := slices.Clone(heirs)
	slices.SortStableFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(class(k, a), class(k, b)), cmp.Compare(loads[a], loads[b]), cmp.Compare(score(k.log, b), score(k.log, a)))
	})
	return order
}

// class is 0 for a node that is the first heir in any case, and 2 for one that is the last heir.
func class(k *key, id string) int {
	free := k.rec != nil && k.rec.Node == ""
	switch {
	case free && id == k.rec.Next, k.rec == nil && id == k.last:
		return 0
	case free && id == k.last:
		return 2
	}
	return 1
}

// score is the weight of a node for a log, for rendezvous hashing.
func score(log, node string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(log + "\x00" + node)) // cannot fail
	x := h.Sum64()                              // similar inputs have similar sums, so mix
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// leave asks the owner of a log to resign.
func (c *Core) leave(k *key, to string) {
	k.leaving, k.leaveTo, k.leaveBy = true, to, c.now+c.cfg.Leave
	c.act(Leave{k.log, k.term})
}

// moving reports whether a log of this node is on its way to another node.
func (c *Core) moving() bool {
	return slices.ContainsFunc(c.names, func(n string) bool {
		k := c.keys[n]
		return k.leaving || k.freeing || k.vacant && k.rec != nil && k.rec.Prev == c.cfg.ID && k.rec.Next != "" && c.now-k.vacantSince < handover*c.cfg.Heartbeat
	})
}

// move begins one move of a log, to drain this node or to balance the nodes.
func (c *Core) move() {
	if !c.able() || c.closing || c.moving() {
		return
	}
	heirs, loads := c.heirs(), c.loads()
	least := func(k *key) string {
		if order := c.rank(k, slices.DeleteFunc(slices.Clone(heirs), func(id string) bool { return id == c.cfg.ID }), loads); len(order) > 0 {
			return order[0]
		}
		return ""
	}
	if c.draining {
		for _, n := range c.names {
			if k := c.keys[n]; k.term != 0 {
				c.leave(k, least(k))
				return
			}
		}
		return
	}
	if c.cfg.Pause < 0 || c.now-c.changed < c.cfg.Pause || len(heirs) < 2 {
		return
	}
	// Only the node with the most logs moves one, so that one log moves at a time.
	most, fewest := heirs[0], heirs[0]
	for _, id := range heirs {
		if loads[id] > loads[most] {
			most = id
		}
		if loads[id] < loads[fewest] {
			fewest = id
		}
	}
	if most != c.cfg.ID || loads[most]-loads[fewest] < 2 {
		return
	}
	var best *key
	for _, n := range c.names {
		k := c.keys[n]
		if k.vacant {
			return
		}
		if k.term != 0 && (best == nil || score(k.log, fewest) > score(best.log, fewest)) {
			best = k
		}
	}
	if best != nil {
		c.leave(best, fewest)
	}
}
