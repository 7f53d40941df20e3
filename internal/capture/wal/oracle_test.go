package wal

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pglogrepl"

	"lockstep"
)

// expected is a change as another decoder of the protocol reads it.
type expected struct {
	Action, Table string
	Row           map[string]*string
	Unchanged     []string
}

// oracle reads a recording with pglogrepl. Key changes are told by old tuples of
// kind K; the tables of the test have no columns stored out of line in their keys.
func oracle(t *testing.T, stream recording) []expected {
	t.Helper()
	relations := map[uint32]*pglogrepl.RelationMessage{}
	var all []expected
	row := func(r *pglogrepl.RelationMessage, tuple *pglogrepl.TupleData, keysOnly bool) expected {
		e := expected{Table: r.Namespace + "." + r.RelationName, Row: map[string]*string{}}
		for i, c := range tuple.Columns {
			name := r.Columns[i].Name
			switch {
			case keysOnly && r.Columns[i].Flags == 0:
			case c.DataType == 't':
				text := string(c.Data)
				e.Row[name] = &text
			case c.DataType == 'n':
				e.Row[name] = nil
			default:
				e.Unchanged = append(e.Unchanged, name)
			}
		}
		return e
	}
	add := func(action string, e expected) {
		e.Action = action
		all = append(all, e)
	}
	for _, f := range stream {
		msg, err := pglogrepl.Parse(f.data)
		if err != nil {
			t.Fatal(err)
		}
		switch m := msg.(type) {
		case *pglogrepl.RelationMessage:
			relations[m.RelationID] = m
		case *pglogrepl.InsertMessage:
			add("insert", row(relations[m.RelationID], m.Tuple, false))
		case *pglogrepl.DeleteMessage:
			add("delete", row(relations[m.RelationID], m.OldTuple, m.OldTupleType == 'K'))
		case *pglogrepl.UpdateMessage:
			r := relations[m.RelationID]
			if m.OldTupleType == 'K' {
				add("delete", row(r, m.OldTuple, true))
				add("insert", row(r, m.NewTuple, false))
				continue
			}
			add("update", row(r, m.NewTuple, false))
		case *pglogrepl.TruncateMessage:
			for _, oid := range m.RelationIDs {
				add("truncate", expected{Table: relations[oid].Namespace + "." + relations[oid].RelationName})
			}
		}
	}
	return all
}

func TestDecoderAgreesWithPglogrepl(t *testing.T) {
	t.Parallel()
	stream := record(t,
		[]string{
			"CREATE TABLE a (id text PRIMARY KEY, v text, body text)", "ALTER TABLE a ALTER body SET STORAGE EXTERNAL",
			"CREATE TABLE f (v text, w text)", "ALTER TABLE f REPLICA IDENTITY FULL", "CREATE TABLE b (id text PRIMARY KEY REFERENCES a)",
		},
		[]string{"a", "f", "b"},
		[]string{
			"INSERT INTO a SELECT i, CASE WHEN i % 3 = 0 THEN NULL ELSE 'v \" \\ ' || i END, repeat('b', i * 1000) FROM generate_series(1, 20) i",
			"UPDATE a SET v = 'w' WHERE length(v) > 7", "UPDATE a SET id = id || 'x' WHERE v IS NULL",
			"INSERT INTO f VALUES ('1', NULL), ('2', '')", "UPDATE f SET w = v", "DELETE FROM f WHERE v = '1'",
			"BEGIN; INSERT INTO b VALUES ('1'); ALTER TABLE f RENAME v TO u; UPDATE f SET w = NULL; TRUNCATE a, b; COMMIT",
		})
	log := newMemoryLog(t)
	replay(t, log, lockstep.Mark{}, 1<<10, stream, &source{})
	var got []expected
	log.each(t, func(r lockstep.Record) {
		e := expected{Action: r.Action().String(), Table: r.Table().String()}
		if len(r.Row()) > 0 {
			if err := json.Unmarshal(r.Row(), &e.Row); err != nil {
				t.Fatal(err)
			}
		}
		if len(r.Extra()) > 0 {
			var extra struct{ Unchanged []string }
			if err := json.Unmarshal(append([]byte(`{"x":0`), append(r.Extra(), '}')...), &extra); err != nil {
				t.Fatal(err)
			}
			e.Unchanged = extra.Unchanged
		}
		got = append(got, e)
	})
	equal(t, got, oracle(t, stream))
	if len(got) < 40 {
		t.Fatal("too few changes to say anything:", len(got))
	}
}
