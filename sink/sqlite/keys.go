package sqlite

import "github.com/surgetank/surgetank/sink"

// KeyForms tells how the table compares the key columns. The loose form covers every affinity and
// each of SQLite's own collations; a column with a default is not known, because a missing field
// has the default's key.
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
