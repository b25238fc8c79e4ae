package queue

import (
	"maps"
	"slices"

	"github.com/surgetank/surgetank"
	"github.com/surgetank/surgetank/internal/door"
)

// metadata is the values of doors and sinks, by namespace and name.
//
// The version of a value is the position of its record in the log, as a Ref. So versions ascend in
// the order of the changes, two changes never have the same version, and a replay finds the same
// versions. A snapshot contains the versions. Values of an older snapshot, which has none, have
// version oldVersion.
type metadata struct {
	spaces  map[string]map[string]door.MetaValue
	version uint64 // the version of the newest change of all namespaces, including removals
}

// oldVersion is less than the version of every record: record positions begin at entry 1.
const oldVersion = 1

// MetaChange is one change of a value. The broker passes it to the watchers of the namespace.
type MetaChange struct {
	Namespace, Name string
	door.MetaValue
}

// set applies a meta_set record. The record of an older snapshot has no position.
func (d *metadata) set(r *Record) {
	version := max(uint64(r.Ref), oldVersion)
	d.version = max(d.version, version)
	ns := d.spaces[r.Namespace]
	switch {
	case r.Value == nil:
		if delete(ns, r.Name); len(ns) == 0 {
			delete(d.spaces, r.Namespace)
		}
	case ns == nil:
		d.spaces[r.Namespace] = map[string]door.MetaValue{r.Name: {Value: r.Value, Version: version}}
	default:
		ns[r.Name] = door.MetaValue{Value: r.Value, Version: version}
	}
}

// each calls f for all values, ordered by namespace and name.
func (d *metadata) each(f func(namespace, name string, v door.MetaValue)) {
	for _, ns := range slices.Sorted(maps.Keys(d.spaces)) {
		for _, name := range slices.Sorted(maps.Keys(d.spaces[ns])) {
			f(ns, name, d.spaces[ns][name])
		}
	}
}

// encode returns the frames of a snapshot: one for each value, then one with their versions in the
// same order.
func (d *metadata) encode() (frames [][]byte) {
	var versions []byte
	n := uint64(0)
	d.each(func(ns, name string, v door.MetaValue) {
		r := Record{Kind: kindMetaSet, Namespace: ns, Name: name, Value: v.Value}
		frames = append(frames, r.encode(nil))
		versions = appendUint(versions, v.Version)
		n++
	})
	if d.version == 0 {
		return nil
	}
	b := appendUint([]byte{byte(kindSnapVersions)}, d.version)
	return append(frames, append(appendUint(b, n), versions...))
}

// restoreVersions reads the frame of versions, after the frames of all values.
func (d *metadata) restoreVersions(x *decoder) {
	d.version = x.uint()
	n, left := x.count(), 0
	for _, ns := range d.spaces { // unordered: a sum
		left += len(ns)
	}
	if n != left {
		x.fail("a snapshot has other values than versions of values")
		return
	}
	d.each(func(ns, name string, v door.MetaValue) {
		v.Version = x.uint()
		if v.Version == 0 || v.Version > d.version {
			x.fail("the version of a value is newer than the newest change")
		}
		d.spaces[ns][name] = v
	})
}

// SetMeta stores a small value for a door. A nil Value removes the value. If Conditional is set and
// the version of the present value is not Expected, Err is CodeExists and nothing changes. The
// version of a missing value is 0.
type SetMeta struct {
	Namespace, Name string
	Value           []byte
	Conditional     bool
	Expected        uint64

	Version uint64 // the result: the version of this change; 0 if nothing changed
	Err     error
}

func (c *SetMeta) run(m *Machine) bool {
	if len(c.Value) > m.limits.MaxMeta {
		c.Err = surgetank.Errorf(surgetank.CodeTooLarge, "the value %s/%s has %d bytes; at most %d are allowed", c.Namespace, c.Name, len(c.Value), m.limits.MaxMeta)
		return true
	}
	now, exists := m.meta.spaces[c.Namespace][c.Name]
	if c.Conditional && now.Version != c.Expected {
		c.Err = surgetank.Errorf(surgetank.CodeExists,
			"the stored value %s/%.100s was changed by another writer: its version is %d and not %d; read it again before you change it", c.Namespace, c.Name, now.Version, c.Expected)
		return true
	}
	if c.Value == nil && !exists {
		return true
	}
	r := &Record{Kind: kindMetaSet, Namespace: c.Namespace, Name: c.Name, Value: slices.Clone(c.Value)}
	m.emit(r)
	c.Version = uint64(r.Ref)
	m.out.Metas = append(m.out.Metas, MetaChange{c.Namespace, c.Name, door.MetaValue{Value: r.Value, Version: c.Version}})
	return true
}

// Meta reads a namespace.
type Meta struct {
	Namespace string
	State     door.MetaState
}

func (c *Meta) run(m *Machine) bool {
	c.State.Version = m.meta.version
	c.State.Values = make(map[string]door.MetaValue, len(m.meta.spaces[c.Namespace]))
	// unordered: the caller sorts
	for k, v := range m.meta.spaces[c.Namespace] {
		c.State.Values[k] = door.MetaValue{Value: slices.Clone(v.Value), Version: v.Version}
	}
	return true
}
