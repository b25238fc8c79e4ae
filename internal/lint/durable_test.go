package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"
)

// durability lists the functions of a package that may write durable state. Names are "function" or
// "Type.method".
type durability struct {
	// structs are the types whose fields are durable.
	structs []string
	// mixed are structs in durable fields that also have volatile fields.
	mixed []string
	// appliers apply records or read snapshots. They write durable fields and call each other. Only
	// gates may be called by other functions of the package.
	appliers []string
	// gates are the appliers that other functions may call. The value lists these functions.
	gates map[string][]string
	// upkeep are functions that write durable fields without changing a fact. The value is the
	// reason.
	upkeep map[string]string
}

var queueDurability = durability{
	structs: []string{"machineDurable", "queueDurable", "slotDurable", "keyed", "keyFacts", "dedup", "dedupAt", "dedupID", "idLine", "table", "publishers", "publisher", "note", "trail", "failures", "keptReason", "Loss", "metadata", "before", "origin"},
	mixed:   []string{"Queue", "slots", "keyState"},
	appliers: []string{
		"Machine.apply", "Machine.Replay", "Machine.applyChecked", "Machine.queueSet", "Machine.queueGone", "Machine.open", "Machine.close",
		"Queue.enqueue", "Queue.insert", "Queue.detach", "Queue.erase", "Queue.drop", "Queue.enqueueKeyed", "Queue.setKey", "Queue.dropKey", "Machine.coalesced", "Queue.returnedTo", "Queue.dropNotes", "Queue.transfer", "Queue.arrive", "noteOf", "Queue.moved", "Queue.purge", "Queue.span",
		"Queue.copied", "Machine.part", "Machine.movedIn", "Queue.adopt", "Queue.restoreDedup", "publishers.learn",
		"Queue.setFailure", "Queue.forgetFailure", "Queue.forgetFailures", "failures.drop",
		"slot.set", "slot.setRef", "slot.setTime", "slot.kill", "slot.lose",
		"dedup.add", "metadata.set", "idLine.push", "table.add", "table.remove",
		"publishers.confirm", "publishers.insert", "publishers.link", "publishers.unlink", "publishers.forget", "publisher.confirm",
		// snapshots
		"Machine.Restore", "Machine.restoreQueue", "Machine.restoreChunk", "Machine.restoreFresh", "Queue.restoreTrails", "Queue.restoreFailures", "Queue.restoreKeys", "publishers.restore", "decoder.losses", "metadata.restoreVersions",
		// repair
		"Repair.Entry", "Repair.Gap", "Repair.Body", "Repair.Finish", "Repair.fit", "Repair.fitTransfer", "Repair.fitCoalesced", "Repair.forget", "Repair.named", "Repair.next", "Repair.purged", "Repair.queue", "Repair.reaches",
		"Repair.seen", "Repair.movedUnseen", "Repair.bodies",
	},
	gates: map[string][]string{
		"Machine.apply": {"Machine.emit", "Machine.publish", "Machine.arrive", "Machine.copyIn", "Relocate.run"}, // each function adds the record to the entry before the call
		"table.remove":  {"dedup.expire"},                                                                        // time has ended the id
		"table.add":     {"table.compact"},                                                                       // the new table has the content of the old one
	},
	upkeep: map[string]string{
		"slot.to":           "its callers set only volatile states, which this test checks",
		"slot.mark":         "marks are volatile",
		"slot.unmark":       "marks are volatile",
		"slot.moveTo":       "it changes only the line of a message without a group",
		"slots.free":        "it clears the slot of a message that an applier has removed",
		"idLine.pop":        "time has ended the first id, or the line is a snapshot's copy",
		"dedup.compact":     "it frees an empty list",
		"table.put":         "it changes the index; dedup.add, which is an applier, decides which id is found",
		"table.take":        "it changes the index",
		"table.split":       "it changes the index and keeps its content",
		"table.compact":     "it copies a table and keeps its content",
		"compactMap":        "it copies a map and keeps its content",
		"decoder.before":    "it decodes a new value",
		"publisher.leaving": "it makes a copy for another shard",
		"Machine.Compact":   "it copies maps and lists and keeps their content",
	},
}

// TestOnlyReplayWritesDurableState checks the machine's promise that the live state and the
// recovered state are the same: only apply changes durable fields, and each change comes from a
// record.
//
// The test finds writes through local variables and parameters. It does not follow a map or a
// pointer that was stored in another struct.
func TestOnlyReplayWritesDurableState(t *testing.T) {
	fset, files := load(t, parser.SkipObjectResolution)
	var pkg []*ast.File
	for _, f := range files {
		if f.pkg == "internal/queue" && !f.test {
			pkg = append(pkg, f.ast)
		}
	}
	for _, problem := range queueDurability.check(t, fset, "internal/queue", pkg) {
		t.Error(problem)
	}
}

// TestDurabilityCheckSees tests the check itself with code that breaks each rule.
func TestDurabilityCheckSees(t *testing.T) {
	const src = `package p
import "slices"
type durable struct { n int; m map[string]int; l []int; set set; c struct{ x int } }
type set []int
type machine struct { durable; v int; elems [4]elem }
type elem struct { durable; next int }
func (s *set) add(n int) { *s = append(*s, n) }
func (m *machine) apply() { m.n++; m.fill() }
func (m *machine) fill() { m.m["a"] = 1 }
func (m *machine) emit() { m.apply() }
func (m *machine) unused() {}
func (m *machine) reads() (int, int) { m.v = m.n; e := &m.elems[0]; e.next = 1; l := slices.Clone(m.l); l[0] = 1; return m.m["a"], m.v }
func (m *machine) bad(k *machine) {
	m.n = 1
	k.n++
	m.m["b"] += 2
	delete(m.m, "b")
	m.l = append(m.l, 1)
	slices.Sort(m.l)
	alias := m.m
	alias["c"] = 1
	change(m.l)
	m.set.add(1)
	m.elems[0] = elem{}
	m.fill()
	take(&m.n)
	m.durable = durable{}
	func() { m.c.x = 1 }()
}
func change(l []int) { l[0] = 1 }
func take(p *int) {}
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	d := durability{structs: []string{"durable"}, appliers: []string{"machine.apply", "machine.fill", "machine.unused"}, gates: map[string][]string{"machine.apply": {"machine.emit"}}}
	got := d.check(t, fset, "p", []*ast.File{f})
	lines := map[string]bool{}
	for _, p := range got {
		if strings.HasPrefix(p, "p.go:") {
			lines[strings.SplitN(p, ":", 3)[1]] = true
		} else if !strings.HasPrefix(p, "machine.unused") {
			t.Error(p)
		}
	}
	want := []string{"7", "14", "15", "16", "17", "18", "19", "21", "24", "25", "26", "27", "28", "30"}
	if lines := slices.Sorted(maps.Keys(lines)); !slices.Equal(lines, slices.Sorted(slices.Values(want))) {
		t.Errorf("violations are in the lines %v, want %v:\n%s", lines, want, strings.Join(got, "\n"))
	}
}
