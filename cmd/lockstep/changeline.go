package main

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"lockstep/client"
)

// paint gives words their colours; the zero value of an entry is none.
type paint struct {
	dim, reset string
	actions    map[string]string
}

func plainPaint() paint { return paint{} }

func colourPaint() paint {
	const red, green, yellow, blue, magenta = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m"
	return paint{
		dim:     "\x1b[2m",
		reset:   "\x1b[0m",
		actions: map[string]string{"insert": green, "update": yellow, "delete": red, "read": blue, "truncate": magenta, "gap": magenta},
	}
}

func (p paint) wrap(colour, text string) string {
	if colour == "" {
		return text
	}
	return colour + text + p.reset
}

// changeLine is a change on one line of at most columns: time, seq, action, table,
// key, and what changed. 0 columns is a line of any length.
func changeLine(c *client.Change, p paint, columns int) string {
	m := &c.Metadata
	clock := "--:--:--.---"
	if at := m.CommitTime(); !at.IsZero() {
		clock = at.Local().Format("15:04:05.000")
	}
	seq := strconv.FormatUint(m.Seq, 10)
	table := printable(m.Table())
	head := clock + "  " + seq + "  " + padded(c.Action, 8) + "  " + table
	rest := strings.TrimSpace(strings.Join([]string{keyText(m.RecordPKs), details(c)}, "  "))
	if room := columns - width(head) - 2; columns > 0 {
		rest = truncate(rest, max(room, 10))
	}
	line := p.wrap(p.dim, clock) + "  " + p.wrap(p.dim, seq) + "  " + p.wrap(p.actions[c.Action], padded(c.Action, 8)) + "  " + table
	if rest == "" {
		return line
	}
	return line + "  " + rest
}

func padded(text string, columns int) string {
	return text + strings.Repeat(" ", max(columns-width(text), 0))
}

func keyText(pks []string) string {
	if len(pks) == 0 {
		return ""
	}
	return "(" + printable(strings.Join(pks, ", ")) + ")"
}

// details is what a person wants to see of the change: old and new values of an
// update, the row otherwise.
func details(c *client.Change) string {
	var parts []string
	row := members(c.Record)
	switch {
	case c.Action == "gap":
		return printable(string(c.Metadata.Gap))
	case c.Action == "delete" && len(c.Metadata.RecordPKs) > 0:
		return ""
	case c.Action == "update" && c.Changes != nil:
		current := map[string]json.RawMessage{}
		for _, m := range row {
			current[m.name] = m.value
		}
		for _, old := range members(c.Changes) {
			parts = append(parts, printable(old.name)+": "+short(old.value)+"→"+short(current[old.name]))
		}
	default:
		for _, m := range row {
			parts = append(parts, printable(m.name)+"="+short(m.value))
		}
	}
	return strings.Join(parts, "  ")
}

// short is a value as it reads best: strings without quotes, everything on one line.
func short(value json.RawMessage) string {
	if len(value) == 0 {
		return "?"
	}
	var text string
	if value[0] != '"' || json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	return truncate(printable(text), 60)
}

type member struct {
	name  string
	value json.RawMessage
}

// members returns an object's members in their order; nothing when it is none.
func members(object json.RawMessage) []member {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if t, err := decoder.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	var out []member
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return out
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return out
		}
		key, _ := name.(string)
		out = append(out, member{key, value})
	}
	return out
}
