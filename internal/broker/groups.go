package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/jsonpath"
)

// groupers finds the group of messages whose publisher named none, by each queue's group_by, and in the same way dedup
// ids by dedup.by. It runs in the callers' goroutines: reading JSON is not the loop's work.
type groupers struct {
	n      atomic.Int64 // queues that have a rule
	byName sync.Map     // queue name → grouper
}

type grouper struct {
	rule   string
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
	r := grouper{rule: rule}
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

// id finds a message's dedup id by the rule of the first of its queues that has one and finds something, and gives that
// rule: one message has one id. What is too long for an id stands there by its hash.
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
		if id = r.text(&p.Message); id == "" {
			continue
		}
		if len(id) > surgetank.MaxDedupIDLen || !utf8.ValidString(id) {
			h := sha256.Sum256([]byte(id))
			id = "sha256:" + hex.EncodeToString(h[:])
		}
		return id, r.rule
	}
	return "", ""
}

// group applies the rule. What cannot be a group's name (too long, control characters) counts as none.
func (r *grouper) group(m *surgetank.Message) string {
	name := r.text(m)
	if len(name) > surgetank.MaxNameLen || name != "" && surgetank.ValidateName("group", name) != nil {
		return ""
	}
	return name
}

// text gives what the rule finds, "" for nothing.
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
		name, _ = r.path.String(m.Body)
	}
	return name
}
