package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"lockstep/sink"
)

// ddlLock is held while definitions are made: IF NOT EXISTS alone fails when two do it
// at the same time.
const ddlLock = "SELECT pg_advisory_xact_lock(7300, 5); "

// guard decides where the seqs of rows are, and makes the place.
func (t *targets) guard(ctx context.Context, c *conn, one *target) error {
	name := t.config.SeqColumn
	if one.generic {
		name = t.config.generic("updated_idx")
	}
	one.seq = one.column(name)
	if one.generic {
		if one.seq < 0 {
			return t.lacks(one.name, []string{name})
		}
		return nil // deleted rows stay: nothing else is to be remembered
	}
	one.guard = t.config.Guard
	if one.guard == "" {
		one.guard = GuardTable
		if one.seq >= 0 {
			one.guard = GuardColumn
		}
	}
	if one.guard == GuardTable {
		one.seq = -1
	} else if one.seq < 0 {
		sql := fmt.Sprintf("%sALTER TABLE %s ADD COLUMN IF NOT EXISTS %s bigint", ddlLock, one.name, quote(name))
		if err := t.exec(ctx, c.PgConn, "add the column "+quote(name)+" of guard: column to "+one.name.String(), sql); err != nil {
			return err
		}
		columns, err := t.columnsOf(ctx, c, one.name)
		if err != nil {
			return err
		}
		one.columns = columns
		if one.seq = one.column(name); one.seq < 0 {
			return t.refusal(sink.Retry, fmt.Sprintf("the column %s of %s vanished", quote(name), one.name), nil)
		}
	}
	return t.sideTable(ctx, c, one)
}

// sideTable makes the table of positions when it is missing.
func (t *targets) sideTable(ctx context.Context, c *conn, one *target) error {
	one.positions = name{one.name.schema, DefaultPositions}
	if t.config.Positions != "" {
		one.positions, _ = parseName(t.config.Positions) // New has read it
	}
	rows, err := t.query(ctx, c, "look for the side table", "SELECT to_regclass($1) IS NOT NULL", one.positions.String())
	if err != nil || rows[0][0] == "t" {
		return err
	}
	sql := ddlLock + fmt.Sprintf(`
CREATE TABLE IF NOT EXISTS %s (target text COLLATE "C" NOT NULL, key bytea NOT NULL, seq bigint NOT NULL, gone_at timestamptz, PRIMARY KEY (target, key)) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS %s ON %[1]s (gone_at) WHERE gone_at IS NOT NULL;
COMMENT ON TABLE %[1]s IS 'How far Lockstep has written each row: its seq by a hash of its key'`, one.positions, quote(one.positions.table+"_gone"))
	return t.exec(ctx, c.PgConn, "create the side table "+one.positions.String(), sql)
}

// create makes a table for records like that of the message.
func (t *targets) create(ctx context.Context, c *conn, n name, m *sink.Message) error {
	if t.config.Form == Generic {
		return t.exec(ctx, c.PgConn, "create "+n.String(), ddlLock+t.config.genericDDL(n))
	}
	types, order, err := t.types(m)
	if err != nil {
		return err
	}
	key := t.config.Key
	if len(key) == 0 {
		key = t.guessKey(m)
	}
	if len(key) == 0 {
		return t.refusal(t.kind(), fmt.Sprintf("create %s: which columns are its key cannot be told from the change: name them in key", n), nil)
	}
	var list []string
	for _, name := range order {
		typ := types[name]
		if slices.Contains(key, name) && typ == "numeric" {
			typ = "bigint"
		}
		list = append(list, quote(name)+" "+typ)
	}
	for _, name := range key {
		if types[name] == "" {
			return t.refusal(t.kind(), fmt.Sprintf("create %s: the record has no %s, which is in key", n, quote(name)), nil)
		}
	}
	if t.config.SoftDelete != "" && types[t.config.SoftDelete] == "" {
		list = append(list, quote(t.config.SoftDelete)+" boolean NOT NULL DEFAULT false")
	}
	if t.config.Guard != GuardTable {
		list = append(list, quote(t.config.SeqColumn)+" bigint")
	}
	sql := fmt.Sprintf("%sCREATE SCHEMA IF NOT EXISTS %s; CREATE TABLE IF NOT EXISTS %s (%s, PRIMARY KEY (%s))",
		ddlLock, quote(n.schema), n, strings.Join(list, ", "), idents(key))
	return t.exec(ctx, c.PgConn, "create "+n.String(), sql)
}

// widen adds columns.
func (t *targets) widen(ctx context.Context, c *conn, n name, m *sink.Message, missing []string) error {
	types, _, err := t.types(m)
	if err != nil {
		return err
	}
	var list []string
	for _, name := range missing {
		list = append(list, "ADD COLUMN IF NOT EXISTS "+quote(name)+" "+or(types[name], "text"))
	}
	return t.exec(ctx, c.PgConn, "add columns to "+n.String(), ddlLock+fmt.Sprintf("ALTER TABLE %s %s", n, strings.Join(list, ", ")))
}

// types returns the types of the target's columns, declared or after the values of a
// record, and their order. A member that is null tells no type: its column comes later.
func (t *targets) types(m *sink.Message) (types map[string]string, order []string, err error) {
	types = map[string]string{}
	err = members(m.Record, func(quotedName, v []byte) error {
		source, err := unquote(quotedName)
		if err != nil {
			return err
		}
		to := t.config.target(string(source))
		typ := t.config.Columns[to]
		if len(t.config.Columns) > 0 && !declared(t.config, to) || to == "" || types[to] != "" {
			return nil
		}
		if typ = or(typ, typeOf(v)); typ != "" {
			types[to] = typ
			order = append(order, to)
		}
		return nil
	})
	if err != nil {
		return nil, nil, t.refusal(sink.Rejected, "the record is no JSON object", nil)
	}
	for name, typ := range t.config.Columns {
		if types[name] == "" && typ != "" {
			types[name] = typ
			order = append(order, name)
		}
	}
	return types, order, nil
}

// typeOf returns a type that takes every value of the kind: numbers are numeric, as the
// next one may have a fraction or more digits.
func typeOf(v []byte) string {
	switch v[0] {
	case '"':
		return "text"
	case '{', '[':
		return "jsonb"
	case 't', 'f':
		return "boolean"
	case 'n':
		return ""
	}
	return "numeric"
}

// guessKey finds the columns whose values are the key's. Nil: they are not certain.
func (t *targets) guessKey(m *sink.Message) []string {
	var key []string
	err := items(m.PKs, func(pk []byte) error {
		want, err := unquote(pk)
		if err != nil {
			return err
		}
		var found []string
		err = members(m.Record, func(name, v []byte) error {
			if text, failed := (kind{}).text(nil, v); failed != nil || !bytes.Equal(text, want) {
				return failed
			}
			source, err := unquote(name)
			found = append(found, t.config.target(string(source)))
			return err
		})
		if err != nil || len(found) != 1 || found[0] == "" {
			return errJSON
		}
		key = append(key, found[0])
		return nil
	})
	if err != nil {
		return nil
	}
	return key
}
