package model

import (
	"maps"

	"github.com/surgetank/surgetank"
)

// MetaKey names a metadata value.
type MetaKey struct{ Namespace, Name string }

// MetaValue is a metadata value and the version of the change that set it.
type MetaValue struct {
	Value   string
	Version uint64
}

// Metas is all metadata. Newest is the version of the newest change, including removals.
type Metas struct {
	Values map[MetaKey]MetaValue
	Newest uint64
}

func (m *Metas) clone() Metas { return Metas{maps.Clone(m.Values), m.Newest} }

// SetMeta sets a value, or removes it if value is nil. If conditional is true, the version of the
// present value must be expected. A missing value has version 0. version is the version that the
// machine chose for the change. SetMeta returns the answer, and the version that the machine must
// answer, which is 0 if nothing changes.
func (m *Model) SetMeta(k MetaKey, value []byte, conditional bool, expected, version uint64) (surgetank.Code, uint64) {
	d := &m.Metas
	now, exists := d.Values[k]
	if conditional && now.Version != expected {
		return surgetank.CodeExists, 0
	}
	switch {
	case value == nil && !exists:
		return "", 0
	case version <= d.Newest:
		return "", d.Newest + 1 // a version must be higher than every earlier one
	case value == nil:
		delete(d.Values, k)
	default:
		d.Values[k] = MetaValue{string(value), version}
	}
	d.Newest = version
	return "", version
}

// Meta returns the values of a namespace by name.
func (m *Model) Meta(namespace string) map[string]MetaValue {
	values := map[string]MetaValue{}
	for k, v := range m.Metas.Values { // unordered: a map of the same
		if k.Namespace == namespace {
			values[k.Name] = v
		}
	}
	return values
}
