package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/surgetank/surgetank/sink"
)

// KeyForms returns how the table compares the key columns, as found by Open.
func (t *Target) KeyForms() map[string]sink.KeyForm { return t.keys }

// readKeys finds the key forms of the columns that on_conflict names. Known forms are whole
// numbers, uuid, and text whose collation treats only equal characters as equal. A column with a
// default has no known form, because a missing field gets the default as its key. A default from a
// sequence is allowed.
func (t *Target) readKeys(ctx context.Context, conn *pgconn.PgConn) error {
	t.keys = map[string]sink.KeyForm{}
	if t.spec.Table.OnConflict == nil || t.spec.Lanes == 1 {
		return nil
	}
	rows, err := query(ctx, conn, `
		SELECT a.attname, b.typname, coalesce(c.collisdeterministic, true) AND NOT EXISTS (
				SELECT FROM pg_index i CROSS JOIN LATERAL unnest(i.indcollation) AS u(oid) JOIN pg_collation n ON n.oid = u.oid
				WHERE i.indrelid = a.attrelid AND i.indisunique AND NOT n.collisdeterministic)
			AND (d.adbin IS NULL OR pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%')
		FROM pg_attribute a
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		LEFT JOIN pg_collation c ON c.oid = a.attcollation
		CROSS JOIN LATERAL (
			WITH RECURSIVE up AS (
				SELECT t.oid, t.typname, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
				UNION ALL
				SELECT t.oid, t.typname, t.typbasetype FROM up JOIN pg_type t ON t.oid = up.typbasetype)
			SELECT * FROM up WHERE typbasetype = 0) b
		WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`, sink.QuoteTable(t.table))
	if err != nil {
		return classify(err)
	}
	for _, r := range rows {
		if string(r[2]) != "t" {
			continue
		}
		switch string(r[1]) {
		case "int2", "int4", "int8":
			t.keys[string(r[0])] = sink.KeyInteger
		case "uuid":
			t.keys[string(r[0])] = sink.KeyUUID
		case "text", "varchar", "bpchar":
			t.keys[string(r[0])] = sink.KeyText
		}
	}
	return nil
}
