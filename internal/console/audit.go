package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

// auditShown is a page of the audit.
const auditShown = 100

type auditView struct {
	frame
	Target  string
	Entries []auditLine
	Older   string // address of the next page
	First   bool
	Reason  string // why there is nothing to see
}

// auditLine is an entry with what it changed, field by field.
type auditLine struct {
	client.AuditEntry
	Where   string // the page of what was changed; empty: there is none
	Changes []difference
	Same    int // fields that stayed
}

// difference is a field that is not what it was.
type difference struct {
	Name     string
	Old, New string
	Was, Is  bool // there was, or is, such a field
}

func auditPage(c *visit) (framed, error) {
	v := &auditView{
		frame:  frame{Title: "Audit", Nav: "audit"},
		Target: strings.TrimSpace(c.r.FormValue("target")), First: c.r.FormValue("after") == "",
	}
	found, err := c.api.Audit(c.ctx, v.Target, client.Page{Limit: auditShown, Cursor: c.r.FormValue("after")})
	if statusOf(err) == http.StatusForbidden {
		v.Reason = "The audit is for those with the scope admin: sign in with such a token to read it."
		return v, nil
	}
	if errors.Is(err, lockstep.ErrUnavailable) {
		v.Reason = words(err)
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range found.Data {
		v.Entries = append(v.Entries, auditLineOf(e))
	}
	if found.Next != "" {
		v.Older = Prefix + "audit?target=" + queryEscape(v.Target) + "&after=" + queryEscape(found.Next)
	}
	return v, nil
}

func auditLineOf(e client.AuditEntry) auditLine {
	l := auditLine{AuditEntry: e}
	kind, _, _ := strings.Cut(e.Action, ".")
	where, known := map[string]string{"consumer": "consumers/", "sync": "syncs/", "database": "databases/"}[kind]
	if known && e.Target != "" && !strings.HasSuffix(e.Action, ".delete") {
		l.Where = Prefix + where + escape(e.Target)
	}
	l.Changes, l.Same = differences(e.Before, e.After)
	return l
}

// differences compares two JSON objects field by field. What is no object is one field
// without a name.
func differences(before, after json.RawMessage) (list []difference, same int) {
	old, errOld := membersOf(before, 0)
	now, errNow := membersOf(after, 0)
	if errOld != nil || errNow != nil {
		old, now = whole(before), whole(after)
	}
	is := map[string]json.RawMessage{}
	for _, f := range now {
		is[f.Name] = f.Value
	}
	was := map[string]bool{}
	for _, f := range old {
		was[f.Name] = true
		value, there := is[f.Name]
		if there && equalJSON(f.Value, value) {
			same++
			continue
		}
		list = append(list, difference{Name: f.Name, Old: shownValue(f.Value), New: shownValue(value), Was: true, Is: there})
	}
	for _, f := range now {
		if !was[f.Name] {
			list = append(list, difference{Name: f.Name, New: shownValue(f.Value), Is: true})
		}
	}
	return list, same
}

func whole(raw json.RawMessage) []member {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	return []member{{Value: raw}}
}

// shownValue is a value of a definition: what is longer is cut.
func shownValue(raw json.RawMessage) string {
	text := plainValue(raw)
	if len(text) > 4<<10 {
		return clip(text, 4<<10) + "…"
	}
	return text
}

func equalJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}

// Day heads the entries of a day.
func (l auditLine) Day() string { return l.At.UTC().Format("Monday, 2 January 2006") }

// Clock is when on that day it was.
func (l auditLine) Clock() string { return l.At.UTC().Format(time.TimeOnly) }
