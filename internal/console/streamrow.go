package console

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep/client"
)

// changeRow is a change in one line.
type changeRow struct {
	Seq          uint64
	At           time.Time
	Database     string
	Schema, Name string
	Table        string // schema.name; empty: of no single table
	Action       string
	Key          string
	Summary      []part
	Skipped      uint64 // not a change: so many were not shown here
}

// part is a piece of a line: a column with what it was and what it is.
type part struct {
	Name     string
	Old, New string
	Changed  bool
}

// failedFilter is the name of the event that tells that the filter failed on a change.
const failedFilter = "error"

const (
	partsShown     = 3         // columns that a line tells of
	partText       = 48        // bytes of a value
	keyText        = 64        // bytes of a key
	largestPart    = 32 << 10  // of a larger value its parts are not compared
	largestSummary = 256 << 10 // of a larger change only its size is told
)

// rowOf writes an event of a tail in one line.
func rowOf(e client.Event, database string) changeRow {
	row := changeRow{Database: database, Action: e.Name}
	row.Seq, _ = strconv.ParseUint(e.ID, 10, 64) // an id that is none is shown as 0
	if e.Name == failedFilter {
		var failed struct{ Reason string }
		_ = json.Unmarshal(e.Data, &failed) // what cannot be read has no reason
		row.Summary = []part{{New: "the filter failed here: " + failed.Reason}}
		return row
	}
	change, err := client.ParseChange(e.Data)
	if err != nil {
		row.Summary = []part{{New: "this change cannot be read: " + err.Error()}}
		return row
	}
	m := &change.Metadata
	row.Action, row.At, row.Schema, row.Name = change.Action, m.CommitTime(), m.TableSchema, m.TableName
	if m.TableName != "" {
		row.Table = m.Table()
	}
	row.Key = keyOf(m.RecordPKs)
	row.Summary = summaryOf(&change, len(e.Data))
	return row
}

func keyOf(pks []string) string {
	text := strings.Join(pks, ",")
	if len(text) > keyText {
		return clip(text, keyText) + "…"
	}
	return text
}

// summaryOf says in a few parts what a change did.
func summaryOf(c *client.Change, size int) []part {
	switch {
	case c.Action == "truncate":
		return []part{{New: "every row is gone"}}
	case c.Action == "gap":
		return []part{{New: "changes may be missing here: " + gapReason(c.Metadata.Gap)}}
	case size > largestSummary:
		return []part{{New: "a change of " + byteText(size)}}
	case c.Action == "update":
		return summaryOfUpdate(c)
	}
	return summaryOfRow(c)
}

// summaryOfRow is the beginning of a row, without its key.
func summaryOfRow(c *client.Change) []part {
	fields, _ := membersOf(c.Record, 20) // what cannot be read is left out
	var parts []part
	for _, f := range fields {
		if len(parts) == partsShown {
			break
		}
		if isKey(c.Metadata.RecordPKs, f.Value) || string(f.Value) == "null" || blank(f.Value) {
			continue
		}
		parts = append(parts, part{Name: f.Name, New: brief(f.Value, partText)})
	}
	return parts
}

func summaryOfUpdate(c *client.Change) []part {
	old, _ := membersOf(c.Changes, 0) // as above
	theirs := slices.DeleteFunc(slices.Clone(old), func(f member) bool { return ownColumn(f.Name) > 0 })
	if len(theirs) > 0 {
		old = theirs // what a sync notes for itself is no news beside them
	}
	if len(old) == 0 {
		if c.Metadata.OldKnown {
			return []part{{New: "nothing changed"}}
		}
		return append([]part{{New: "now"}}, summaryOfRow(c)...)
	}
	now := map[string]json.RawMessage{}
	fields, _ := membersOf(c.Record, 0)
	for _, f := range fields {
		now[f.Name] = f.Value
	}
	var parts []part
	for i, f := range old {
		if i == partsShown {
			parts = append(parts, part{New: "and " + count(len(old)-i) + " more"})
			break
		}
		parts = append(parts, partOf(f.Name, f.Value, now[f.Name]))
	}
	return parts
}

// partOf tells of a column that changed: of a value with parts, of the first that did.
func partOf(name string, old, now json.RawMessage) part {
	if len(old) <= largestPart && len(now) <= largestPart {
		if places, _ := within(old, now); len(places) > 0 {
			d := places[0]
			return part{Name: strings.Replace(name+"."+d.Name, ".[", "[", 1), Old: brief(json.RawMessage(d.Old), partText), New: brief(json.RawMessage(d.New), partText), Changed: true}
		}
	}
	return part{Name: name, Old: brief(old, partText), New: brief(now, partText), Changed: true}
}

// isKey says whether a value is that of a key's column, which has its own place.
func isKey(pks []string, value json.RawMessage) bool {
	return slices.Contains(pks, strings.Trim(string(value), `"`))
}

// blank says whether a value is a text of nothing but spaces.
func blank(value json.RawMessage) bool { return strings.Trim(string(value), `" `) == "" }

func gapReason(raw json.RawMessage) string {
	var gap struct{ State, Reason string }
	if json.Unmarshal(raw, &gap) != nil || gap.Reason == "" {
		return "its reason is not known"
	}
	return strings.ReplaceAll(gap.Reason, "_", " ")
}

// Clock is the time of the day, for people.
func (r changeRow) Clock() string {
	if r.At.IsZero() {
		return "–"
	}
	return r.At.UTC().Format("15:04:05.000")
}

// Tone is how the action looks; its word stands beside it.
func (r changeRow) Tone() string { return toneOf(r.Action) }

func toneOf(action string) string {
	switch action {
	case "insert", "read":
		return "born"
	case "update":
		return "edited"
	}
	return "gone"
}
