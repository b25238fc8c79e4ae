package sqlite

import "github.com/surgetank/surgetank/sink"

// KeyForms returns how the table compares the key columns. The loose form covers every affinity and
// each of SQLite's own collations. A column with a default has no known form, because a missing
// field gets the default as its key.
func (t *Target) KeyForms() map[string]sink.KeyForm {
	forms := map[string]sink.KeyForm{}
	if len(t.lanes) == 0 {
		return forms
	}
	for _, c := range t.lanes[0].table.columns {
		if !c.fallback {
			forms[c.Name] = sink.KeyLoose
		}
	}
	return forms
}
