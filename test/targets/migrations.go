//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// migrations are changes of the table while its sink runs. Each happens at most once in a round.
var migrations = []*action{
	{name: "migrate numeric", run: func(w *world) error {
		if w.plan.kind == "sqlite" {
			return w.rebuilt("numeric", "v REAL", "v TEXT", func(t *table) { t.exact = true })
		}
		return w.alter("numeric", "ALTER TABLE rows_t ALTER v TYPE numeric(14,4)", func(t *table) { t.exact = true })
	}},
	{name: "migrate varchar", run: func(w *world) error {
		if w.plan.kind == "sqlite" {
			return w.rebuilt("varchar", "s TEXT CHECK (length(s) <= 14)", "s TEXT", func(t *table) { t.long = true })
		}
		to := []string{"text", "varchar(80)"}[w.plan.rng.IntN(2)]
		return w.alter("varchar", "ALTER TABLE rows_t ALTER s TYPE "+to, func(t *table) { t.long = true })
	}},
	{name: "migrate bigint", on: "postgres", run: func(w *world) error {
		return w.alter("bigint", "ALTER TABLE rows_t ALTER i TYPE bigint", func(t *table) { t.big = true })
	}},
	{name: "migrate default", run: func(w *world) error {
		w.mu.Lock()
		n := w.table.dflt + 1
		w.mu.Unlock()
		if n > 3 {
			return nil
		}
		was, is, name := fmt.Sprintf("d TEXT DEFAULT 'd%d'", n-1), fmt.Sprintf("d TEXT DEFAULT 'd%d'", n), fmt.Sprintf("default %d", n)
		if w.plan.kind == "sqlite" {
			return w.rebuilt(name, was, is, func(t *table) { t.dflt = n })
		}
		return w.alter(name, fmt.Sprintf("ALTER TABLE rows_t ALTER d SET DEFAULT 'd%d'", n), func(t *table) { t.dflt = n })
	}},
	{name: "migrate jsonb", on: "postgres", run: func(w *world) error {
		return w.alter("jsonb", "ALTER TABLE rows_t ALTER j TYPE text USING j #>> '{}'", func(t *table) { t.text = true })
	}},
	{name: "migrate not null away", run: func(w *world) error {
		if w.plan.kind == "sqlite" {
			return w.rebuilt("null", "u TEXT NOT NULL", "u TEXT", func(t *table) { t.null = true })
		}
		return w.alter("null", "ALTER TABLE rows_t ALTER u DROP NOT NULL", func(t *table) { t.null = true })
	}},
	{name: "migrate column", run: func(w *world) error {
		if w.plan.kind == "sqlite" {
			return w.added("extra", "extra INTEGER")
		}
		return w.alter("extra", "ALTER TABLE rows_t ADD extra int", nil)
	}},
	{name: "migrate column with default", run: func(w *world) error {
		if w.plan.kind == "sqlite" {
			return w.added("filled", "filled INTEGER NOT NULL DEFAULT 1")
		}
		return w.alter("filled", "ALTER TABLE rows_t ADD filled int NOT NULL DEFAULT 1", nil)
	}},
	// The new column is NOT NULL and no message has a value for it. The table rejects every row
	// until a user changes the table.
	{name: "migrate column not null", on: "postgres", run: func(w *world) error {
		if w.done["strict"] {
			return nil
		}
		if err := w.alter("strict", "ALTER TABLE rows_t ADD strict int; UPDATE rows_t SET strict = 0; ALTER TABLE rows_t ALTER strict SET NOT NULL", nil); err != nil {
			return err
		}
		w.advance(40)
		w.pause(300 * time.Millisecond)
		if w.plan.rng.IntN(2) == 0 {
			return w.db.exec("ALTER TABLE rows_t ALTER strict SET DEFAULT 0")
		}
		return w.db.exec("ALTER TABLE rows_t ALTER strict DROP NOT NULL")
	}},
}

// rebuilt rebuilds SQLite's table with one column changed.
func (w *world) rebuilt(name, was, is string, then func(t *table)) error {
	if w.done[name] {
		return nil
	}
	i := slices.Index(w.columns, was)
	if i < 0 {
		return fmt.Errorf("no column is %q in %s", was, strings.Join(w.columns, ", "))
	}
	columns := slices.Clone(w.columns)
	columns[i] = is
	if err := w.alter(name, w.lite().rebuild(columns), then); err != nil {
		return err
	}
	w.columns = columns
	return nil
}

// added adds a column to SQLite's table in place.
func (w *world) added(name, column string) error {
	if w.done[name] {
		return nil
	}
	if err := w.alter(name, "ALTER TABLE rows_t ADD COLUMN "+column, nil); err != nil {
		return err
	}
	w.columns = append(slices.Clone(w.columns), column)
	return nil
}
