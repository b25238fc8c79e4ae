package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/jsonpath"
	"github.com/surgetank/surgetank/internal/queue"
)

// groupers finds the group of messages that were published without a group, by each queue's
// group_by. In the same way it finds dedup ids by dedup.by, and coalescing keys by coalesce.by. It
// runs on the callers' goroutines, because parsing JSON would delay the loop.
type groupers struct {
	n      atomic.Int64 // number of queues that have a rule
	byName sync.Map     // queue name → grouper
}

type grouper struct {
	rule   string
	header string
	path   *jsonpath.Path
	key    bool
	group  bool // the rule's value is the message's own group
}

// set sets a queue's rule; "" or "none" removes it.
func (g *groupers) set(name, rule string) {
	if rule == "" || rule == "none" {
		if _, had := g.byName.LoadAndDelete(name); had {
			g.n.Add(-1)
		}
		return
	}
	r := grouper{rule: rule}
	if h, ok := strings.CutPrefix(rule, "header:"); ok {
		r.header = h
	} else if rule == "routing_key" {
		r.key = true
	} else if rule == "group" {
		r.group = true
	} else if p, err := jsonpath.Parse(rule); err == nil {
		r.path = &p
	}
	if _, had := g.byName.Swap(name, &r); !had {
		g.n.Add(1)
	}
}

// find returns one group for each queue, or nil when no queue has a rule.
func (g *groupers) find(p *surgetank.Publishing) []string {
	if g.n.Load() == 0 {
		return nil
	}
	var groups []string
	for i, name := range p.Queues {
		r, ok := g.byName.Load(name)
		if !ok {
			continue
		}
		if groups == nil {
			groups = make([]string, len(p.Queues))
		}
		groups[i] = r.(*grouper).identity(&p.Message)
	}
	return groups
}

// id returns a message's dedup id and the rule that found it. A message has one id. The queues are
// tried in order, and the first rule that finds a value sets the id.
func (g *groupers) id(p *surgetank.Publishing) (id, rule string) {
	if g.n.Load() == 0 {
		return "", ""
	}
	for _, name := range p.Queues {
		v, ok := g.byName.Load(name)
		if !ok {
			continue
		}
		r := v.(*grouper)
		if id = r.identity(&p.Message); id != "" {
			return id, r.rule
		}
	}
	return "", ""
}

// keys returns the coalescing key of a message in each queue, or nil when no queue has a rule.
// groups contains the message's group in each queue; if groups is nil, the message's own group is
// used.
func (g *groupers) keys(p *surgetank.Publishing, groups []string) []queue.Key {
	if g.n.Load() == 0 {
		return nil
	}
	var keys []queue.Key
	for i, name := range p.Queues {
		v, ok := g.byName.Load(name)
		if !ok {
			continue
		}
		r, group := v.(*grouper), p.Message.Group
		if groups != nil {
			group = groups[i]
		}
		value := group
		if !r.group {
			value = r.identity(&p.Message)
		}
		if value == "" {
			continue
		}
		if keys == nil {
			keys = make([]queue.Key, len(p.Queues))
		}
		keys[i] = queue.Key{Hash: queue.MakeCoalesceKey(r.rule, group, value), Group: value == group}
	}
	return keys
}

// identity applies the rule. It returns text that can be a group or a dedup id, or "" if the rule
// finds nothing. A value that is too long, not UTF-8 or has a control character is replaced by its
// hash, so that equal values stay equal and different values stay different.
func (r *grouper) identity(m *surgetank.Message) string {
	v := r.text(m)
	if v == "" || surgetank.ValidateName("group", v) == nil {
		return v
	}
	h := sha256.Sum256([]byte(v))
	return "sha256:" + hex.EncodeToString(h[:])
}

// text returns the value that the rule finds, or "" for nothing.
func (r *grouper) text(m *surgetank.Message) (name string) {
	switch {
	case r.key:
		name = m.Key
	case r.header != "":
		for _, h := range m.Headers {
			if strings.EqualFold(h.Name, r.header) {
				name = h.Value
				break
			}
		}
	case r.path != nil:
		name, _ = r.path.Identity(m.Body)
	}
	return name
}
