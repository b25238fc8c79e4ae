package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/jsonpath"
)

// groupers finds the group of messages whose publisher named none, by each queue's group_by. It runs in the
// callers' goroutines: reading JSON is not the loop's work.
type groupers struct {
	n      atomic.Int64 // queues that have a rule
	byName sync.Map     // queue name → grouper
}

type grouper struct {
	header string
	path   *jsonpath.Path
	key    bool
}

// set takes a queue's rule; "" or "none" removes it.
func (g *groupers) set(name, rule string) {
	if rule == "" || rule == "none" {
		if _, had := g.byName.LoadAndDelete(name); had {
			g.n.Add(-1)
		}
		return
	}
	var r grouper
	if h, ok := strings.CutPrefix(rule, "header:"); ok {
		r.header = h
	} else if rule == "routing_key" {
		r.key = true
	} else if p, err := jsonpath.Parse(rule); err == nil {
		r.path = &p
	}
	if _, had := g.byName.Swap(name, &r); !had {
		g.n.Add(1)
	}
}

// find gives one group a queue, or nil when no queue has a rule.
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
		groups[i] = r.(*grouper).group(&p.Message)
	}
	return groups
}

// group applies the rule. What cannot be a group's name (too long, control characters) counts as none.
func (r *grouper) group(m *surgetank.Message) string {
	var name string
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
		name, _ = r.path.String(m.Body)
	}
	if len(name) > surgetank.MaxNameLen || name != "" && surgetank.ValidateName("group", name) != nil {
		return ""
	}
	return name
}
