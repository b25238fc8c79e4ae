package model

import (
	"slices"

	"github.com/surgetank/surgetank"
)

// kept tells whether the limit of a consumer's pool stops hand-outs to the consumer.
func (c *Consumer) kept() bool {
	limit, held := c.q.m.pools[c.opts.Pool], 0
	if c.opts.Pool == 0 || limit == 0 {
		return false
	}
	for _, q := range c.q.m.Queues {
		for _, x := range q.msgs {
			if x.state == surgetank.StateLeased && x.consumer.opts.Pool == c.opts.Pool {
				held++
			}
		}
	}
	return held >= limit
}

// forgetPool removes the limit of a pool without members.
func (m *Model) forgetPool(id uint64) {
	for _, q := range m.Queues {
		for _, c := range q.consumers {
			if c.opts.Pool == id {
				return
			}
		}
		for _, x := range q.msgs {
			if x.state == surgetank.StateLeased && x.consumer.opts.Pool == id {
				return
			}
		}
	}
	delete(m.pools, id)
}

// turnOf returns the member of c's pool that is served next. Among the members that their queues
// would serve now, it is the one served longest ago. c must be such a member.
func (m *Model) turnOf(c *Consumer) *Consumer {
	for _, o := range m.members(c.opts.Pool) {
		if o == c || slices.Contains(o.q.line, o) && o.q.any() && o.q.mayGo() && o.q.nextConsumer() == o {
			return o
		}
	}
	return c
}

// members returns the consumers of a pool in the order of their turns.
func (m *Model) members(pool uint64) []*Consumer {
	var list []*Consumer
	for _, q := range m.Queues {
		for _, c := range q.consumers {
			if c.opts.Pool == pool {
				list = append(list, c)
			}
		}
	}
	slices.SortFunc(list, func(a, b *Consumer) int { return a.turn - b.turn })
	return list
}
