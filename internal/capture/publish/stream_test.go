package publish

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"lockstep/internal/pgdb/pgtest"
)

// slot is a slot for the tests' publications, read through SQL functions.
type slot struct {
	url, name string
	relations map[uint32]string
}

func newSlot(t testing.TB, url string) *slot {
	t.Helper()
	name := "slot_" + strings.Trim(currentDatabaseName(t, url), `"`)
	pgtest.Query(t, url, "SELECT pg_create_logical_replication_slot($1::name, 'pgoutput')", name)
	return &slot{url, name, make(map[uint32]string)}
}

func currentDatabaseName(t testing.TB, url string) string {
	t.Helper()
	return pgtest.Query(t, url, "SELECT current_database()")[0][0]
}

// sent is one message of the stream that a test looks at.
type sent struct {
	kind  string // begin, commit, insert, update, delete, truncate, table, row, gap, message
	table string // of insert, update, delete
	tuple []string
	text  string // of table, row, gap, message
}

func (s sent) String() string {
	switch s.kind {
	case "insert", "update", "delete":
		return s.kind + " " + s.table + " (" + strings.Join(s.tuple, ",") + ")"
	case "row", "message":
		return s.kind + " " + s.text
	}
	return s.kind
}

// read returns what has come since the last read.
func (s *slot) read(t testing.TB) []sent {
	t.Helper()
	var out []sent
	for _, row := range pgtest.Query(t, s.url, `
		SELECT encode(data, 'hex')
		FROM pg_logical_slot_get_binary_changes($1::name, NULL, NULL, 'proto_version', '1', 'messages', 'true',
			'publication_names', 'lockstep_app,lockstep_app_inserts')`, s.name) {
		data, err := hex.DecodeString(row[0])
		if err != nil {
			t.Fatal(err)
		}
		if one, ok := s.parse(data); ok {
			out = append(out, one)
		}
	}
	return out
}

func (s *slot) parse(data []byte) (sent, bool) {
	body := data[1:]
	switch data[0] {
	case 'B':
		return sent{kind: "begin"}, true
	case 'C':
		return sent{kind: "commit"}, true
	case 'T':
		return sent{kind: "truncate"}, true
	case 'R':
		schema, rest, _ := strings.Cut(string(body[4:]), "\x00")
		name, _, _ := strings.Cut(rest, "\x00")
		s.relations[binary.BigEndian.Uint32(body)] = schema + "." + name
	case 'I':
		return sent{kind: "insert", table: s.relations[binary.BigEndian.Uint32(body)], tuple: tuple(body[5:])}, true
	case 'U':
		return sent{kind: "update", table: s.relations[binary.BigEndian.Uint32(body)], tuple: tuple(body[5:])}, true
	case 'D':
		return sent{kind: "delete", table: s.relations[binary.BigEndian.Uint32(body)], tuple: tuple(body[5:])}, true
	case 'M':
		prefix, rest, _ := strings.Cut(string(body[9:]), "\x00")
		switch text := rest[4:]; prefix {
		case TablePrefix + testSecret:
			return sent{kind: "table", text: text}, true
		case RowPrefix + testSecret:
			return sent{kind: "row", text: text}, true
		case GapPrefix + testSecret:
			return sent{kind: "gap", text: text}, true
		default:
			return sent{kind: "message", text: prefix}, true
		}
	}
	return sent{}, false
}

// tuple reads the columns; the tests' updates leave their keys alone.
func tuple(b []byte) []string {
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	out := make([]string, n)
	for i := range out {
		if b[0] != 't' {
			out[i], b = string(b[0]), b[1:]
			continue
		}
		size := int(binary.BigEndian.Uint32(b[1:]))
		out[i], b = string(b[5:5+size]), b[5+size:]
	}
	return out
}

// lines are the messages without the bounds of transactions that hold nothing.
func lines(list []sent) []string {
	var out []string
	for _, s := range list {
		if s.kind == "commit" && len(out) > 0 && out[len(out)-1] == "begin" {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, s.String())
	}
	return out
}

func announcement(t testing.TB, list []sent) TableMessage {
	t.Helper()
	var m TableMessage
	for _, s := range list {
		if s.kind == "table" {
			if err := json.Unmarshal([]byte(s.text), &m); err != nil {
				t.Fatal(err)
			}
			return m
		}
	}
	t.Fatal("no table was announced in", fmt.Sprint(lines(list)))
	return m
}
