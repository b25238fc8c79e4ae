//go:build linux

package main

import (
	"fmt"
	"strings"

	"github.com/surgetank/surgetank/test/targets/judge"
)

// table says which values the target's table accepts now. A migration first widens the table, and
// then publishers send the new values. So the table accepts every message that is not poison.
type table struct {
	exact bool // column v keeps every digit
	long  bool // column s accepts more than 12 characters
	big   bool // column i accepts more than 32 bits
	null  bool // column u accepts null
	text  bool // column j is text, not JSON
	dflt  int  // the number in the default of column d
}

// compose makes the next messages of a server and the values that the table may show for each
// message.
func (w *world) compose(n *node, count int) []*judge.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*judge.Message
	for range count {
		w.next++
		m, body := w.message(n, w.next)
		w.messages[m.N], w.bodies[m.N], w.owner[m.N] = m, body, n
		n.holds[m.N] = judge.Maybe
		list = append(list, m)
	}
	return list
}

// message composes message number n. The caller must have locked mu.
func (w *world) message(from *node, n int) (*judge.Message, []byte) {
	t := w.table
	m := &judge.Message{N: n, Key: fmt.Sprintf("k%d", n), Cells: map[string][]string{}}
	if w.plan.mode == judge.Update {
		m.Key = fmt.Sprintf("k%d", n%37)
		if len(w.nodes) > 1 { // the messages of two publishers have no common order
			m.Key = from.name + m.Key
		}
	}
	if w.plan.grouped {
		m.Group = fmt.Sprintf("%s-g%d", from.name, n%7)
		if w.plan.mode == judge.Update {
			m.Group = from.name + "-" + m.Key // a key's newest message is written last only inside a group
		}
	}
	v, s, i, u := fmt.Sprintf("%d.%04d", n, 1+n*7%9999), fmt.Sprintf("s%d", n), n, `"u"`
	if t.long {
		s = strings.Repeat("long", 10) + s
	}
	if t.big {
		i += 5_000_000_000
	}
	m.Poison = w.plan.poison && n%61 == 0
	if m.Poison {
		i = -n // the table's check rejects it
	}
	m.Cells["s"], m.Cells["i"], m.Cells["u"] = []string{s}, []string{fmt.Sprint(i)}, []string{"u"}
	if t.null && n%3 == 0 {
		u = "null"
		m.Cells["u"] = []string{""}
	}
	if t.exact {
		m.Cells["v"] = []string{v}
	}
	if t.text {
		m.Cells["j"] = []string{fmt.Sprintf("j%d", n)}
	} else {
		m.Cells["j"] = []string{fmt.Sprintf("%q", fmt.Sprintf("j%d", n)), fmt.Sprintf("j%d", n)}
	}
	for d := t.dflt; d <= 3; d++ { // the row can be written after later changes of the default
		m.Cells["d"] = append(m.Cells["d"], fmt.Sprintf("d%d", d))
	}
	return m, fmt.Appendf(nil, `{"n":%d,"k":%q,"v":%s,"s":%q,"i":%d,"j":"j%d","u":%s}`, n, m.Key, v, s, i, n, u)
}

// alter changes the table, and then the messages that publishers send.
func (w *world) alter(name, sql string, then func(t *table)) error {
	if w.done[name] {
		return nil
	}
	if err := w.db.exec(sql); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[name] = true
	if then != nil {
		then(&w.table)
	}
	return nil
}
