package postgres

import (
	"fmt"
	"slices"
	"strings"
)

// All statements take arrays: $1 hashes of keys, $2 seqs, and from $3 one array of
// texts per column. A cast without length makes values of them, so that one that is too
// long is refused by the assignment instead of being cut.

func (t *target) input(columns []int) string {
	var params, names strings.Builder
	for n, i := range columns {
		fmt.Fprintf(&params, ", $%d::text[]", n+3)
		fmt.Fprintf(&names, ", c%d", i)
	}
	return fmt.Sprintf("WITH i AS (SELECT * FROM unnest($1::bytea[], $2::bigint[]%s) AS i(h, s%s))", &params, &names)
}

// floor is the seq of the newest truncate.
func (t *target) floor() string {
	return fmt.Sprintf("coalesce((SELECT f.seq FROM %s f WHERE f.target = %s AND f.key = ''), 0)", t.positions, literal(t.name.String()))
}

func (t *target) cast(i int) string { return fmt.Sprintf("i.c%d::%s", i, t.columns[i].cast) }

// won is the CTE w of GuardTable: the keys whose rows are to be written. It locks their
// positions, so that of two processes the newer one wins whatever their timing.
func (t *target) won(goneAt string) string {
	return fmt.Sprintf(`, w AS (
	INSERT INTO %s AS p (target, key, seq, gone_at)
	SELECT %s, i.h, i.s, %s FROM i WHERE i.s > %s ORDER BY i.h
	ON CONFLICT (target, key) DO UPDATE SET seq = excluded.seq, gone_at = excluded.gone_at WHERE p.seq < excluded.seq
	RETURNING p.key
)`, t.positions, literal(t.name.String()), goneAt, t.floor())
}

// upsert writes rows that have these columns.
func (t *target) upsert(columns []int, d deed) string {
	var names, values, sets []string
	for _, i := range columns {
		names = append(names, quote(t.columns[i].name))
		values = append(values, t.cast(i))
		if !slices.Contains(t.key, i) && !t.columns[i].always && !t.kept(i, d) {
			sets = append(sets, fmt.Sprintf("%s = excluded.%[1]s", quote(t.columns[i].name)))
		}
	}
	var with, from, where string
	switch t.guard {
	case GuardTable:
		with, from = t.won("NULL::timestamptz"), "i JOIN w ON w.key = i.h"
	case GuardColumn:
		names, values = append(names, quote(t.columns[t.seq].name)), append(values, "i.s")
		sets = append(sets, fmt.Sprintf("%s = excluded.%[1]s", quote(t.columns[t.seq].name)))
		from = fmt.Sprintf("i WHERE i.s > %s AND NOT EXISTS (SELECT FROM %s p WHERE p.target = %s AND p.key = i.h AND p.seq >= i.s)",
			t.floor(), t.positions, literal(t.name.String()))
		where = " WHERE " + t.older("excluded."+quote(t.columns[t.seq].name))
	default:
		from, where = "i", " WHERE "+t.older("excluded."+quote(t.columns[t.seq].name))
	}
	action := "NOTHING"
	if len(sets) > 0 {
		action = "UPDATE SET " + strings.Join(sets, ", ") + where
	}
	return fmt.Sprintf("%s%s\nINSERT INTO %s AS t (%s) OVERRIDING SYSTEM VALUE\nSELECT %s FROM %s ORDER BY i.s\nON CONFLICT (%s) DO %s",
		t.input(columns), with, t.name, strings.Join(names, ", "), strings.Join(values, ", "), from, t.keyNames(), action)
}

// kept reports whether a column of the generic table stays as it was written first.
func (t *target) kept(i int, d deed) bool {
	if !t.generic {
		return false
	}
	c := t.columns[i]
	return c.name == t.inserted || d == removed && c.name == t.data
}

// older is the condition that the table's row is older than a seq.
func (t *target) older(than string) string {
	return fmt.Sprintf("coalesce(t.%s, 0) < %s", quote(t.columns[t.seq].name), than)
}

func (t *target) keyNames() string {
	list := make([]string, len(t.key))
	for n, i := range t.key {
		list[n] = t.columns[i].name
	}
	return idents(list)
}

// bury notes that rows are deleted. It is a statement of its own: the one that deletes
// waits for nothing then, and sees what those wrote whom this one waited for.
func (t *target) bury() string {
	if t.guard == GuardTable {
		return t.input(nil) + t.won("now()") + "\nSELECT FROM w"
	}
	return fmt.Sprintf(`%s
INSERT INTO %s AS p (target, key, seq, gone_at) SELECT %s, i.h, i.s, now() FROM i ORDER BY i.h
ON CONFLICT (target, key) DO UPDATE SET seq = excluded.seq, gone_at = excluded.gone_at WHERE p.seq < excluded.seq`,
		t.input(nil), t.positions, literal(t.name.String()))
}

// remove deletes the rows that bury has noted, or marks them as deleted.
func (t *target) remove(columns []int) string {
	same := make([]string, len(t.key))
	for n, i := range t.key {
		same[n] = fmt.Sprintf("t.%s = %s", quote(t.columns[i].name), t.cast(i))
	}
	matches := strings.Join(same, " AND ")
	from := fmt.Sprintf("i JOIN %s p ON p.target = %s AND p.key = i.h AND p.seq = i.s", t.positions, literal(t.name.String()))
	if t.guard == GuardColumn {
		from, matches = "i", matches+" AND "+t.older("i.s")
	}
	if t.gone < 0 {
		return fmt.Sprintf("%s\nDELETE FROM %s t USING %s WHERE %s", t.input(columns), t.name, from, matches)
	}
	set := fmt.Sprintf("%s = %s", quote(t.columns[t.gone].name), t.cast(t.gone))
	if t.guard == GuardColumn {
		set += fmt.Sprintf(", %s = i.s", quote(t.columns[t.seq].name))
	}
	return fmt.Sprintf("%s\nUPDATE %s t SET %s FROM %s WHERE %s", t.input(columns), t.name, set, from, matches)
}

// truncate empties the table, except for what is newer than $1. It happens once.
func (t *target) truncate() string {
	if t.generic {
		return fmt.Sprintf("UPDATE %s SET %s = true, %s = $1::bigint WHERE %s = $2::text AND %[3]s < $1::bigint",
			t.name, quote(t.deleted), quote(t.columns[t.seq].name), quote(t.collection))
	}
	target := literal(t.name.String())
	with := fmt.Sprintf(`WITH f AS (
	INSERT INTO %s AS p (target, key, seq) VALUES (%s, '', $1::bigint)
	ON CONFLICT (target, key) DO UPDATE SET seq = excluded.seq WHERE p.seq < excluded.seq
	RETURNING 1
), g AS (
	DELETE FROM %[1]s p WHERE p.target = %[2]s AND p.key <> '' AND p.seq < $1::bigint AND EXISTS (SELECT FROM f)
)`, t.positions, target)
	which := fmt.Sprintf("EXISTS (SELECT FROM f) AND NOT EXISTS (SELECT FROM %s p WHERE p.target = %s AND p.key <> '' AND p.seq > $1::bigint)", t.positions, target)
	if t.guard == GuardColumn {
		which = "EXISTS (SELECT FROM f) AND " + t.older("$1::bigint")
	}
	if t.gone < 0 {
		return fmt.Sprintf("%s\nDELETE FROM %s t WHERE %s", with, t.name, which)
	}
	c := t.columns[t.gone]
	value := "now()"
	if c.truth {
		value = "true"
	}
	return fmt.Sprintf("%s\nUPDATE %s t SET %s = %s WHERE %s", with, t.name, quote(c.name), value, which)
}

// held is the target's lock: writers of rows share it, and a truncate, with GuardColumn
// also a delete, has it alone. Without it a delete would not see a row that is being
// inserted, and that one not the mark of the delete.
func (t *target) held(d deed) string {
	if d == removed {
		return "SELECT pg_advisory_xact_lock(7301, $1::int4)"
	}
	return "SELECT pg_advisory_xact_lock_shared(7301, $1::int4)"
}

// prune forgets rows that were deleted long ago, some at a time.
func (t *target) prune() string {
	return fmt.Sprintf(`DELETE FROM %s p WHERE (p.target, p.key) IN (
	SELECT o.target, o.key FROM %[1]s o WHERE o.target = %s AND o.gone_at < now() - $1::interval LIMIT %d)`,
		t.positions, literal(t.name.String()), pruned)
}
