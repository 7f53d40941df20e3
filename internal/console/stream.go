package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pattern"
)

// streamPages registers the live tail, and the page of a change.
func (s *Console) streamPages() {
	s.page("stream", "stream", streamPage)
	s.mux.HandleFunc("GET "+Prefix+"stream/events", s.signedIn(followChanges))
	s.page("databases/{name}/changes/{seq}", "change", changePage)
	s.mux.HandleFunc("GET "+Prefix+"databases/{name}/changes/{seq}/raw", s.signedIn(rawChange))
	s.action("databases/{name}/changes/{seq}/replay", replayChange)
}

// choice is what a reader of the stream wants to see.
type choice struct {
	Database string
	Tables   string // patterns, with commas between them
	Action   string
	Key      string // values of the key's columns, with commas between them
	Filter   string // an expression
	From     string // how many of the last changes the page begins with

	patterns pattern.Patterns
}

// actionsShown are those that the field offers.
func actionsShown() []string {
	return []string{"insert", "update", "delete", "truncate", "read", "gap"}
}

func selectedBy(q url.Values) choice {
	text := func(name string) string { return strings.TrimSpace(q.Get(name)) }
	return choice{
		Database: text("database"), Tables: text("tables"), Action: text("action"), Key: text("key"), Filter: text("filter"), From: cmp.Or(text("from"), "100"),
	}
}

// query writes the selection as an address has it.
func (s choice) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"database": s.Database, "tables": s.Tables, "action": s.Action, "key": s.Key, "filter": s.Filter} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if s.From != "100" {
		q.Set("from", s.From)
	}
	return q
}

// tables returns the patterns one by one.
func (s choice) tables() []string {
	return slices.DeleteFunc(strings.Split(s.Tables, ","), func(p string) bool { return strings.TrimSpace(p) == "" })
}

// expression is the key and the filter together.
func (s choice) expression() string {
	var parts []string
	if s.Key != "" {
		parts = append(parts, `join(metadata.record_pks, ",") == `+quoted(s.Key))
	}
	if s.Filter != "" {
		parts = append(parts, s.Filter)
	}
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return "(" + parts[0] + ") && (" + parts[1] + "\n)"
}

// quoted writes a text for an expression.
func quoted(text string) string {
	raw, _ := json.Marshal(text) // texts always marshal
	return string(raw)
}

// options are those of a tail that gets what is selected, from after a seq.
func (s choice) options(after uint64) client.TailOptions {
	o := client.TailOptions{Tables: s.tables(), Filter: s.expression(), LastID: strconv.FormatUint(after, 10)}
	if s.Action != "" {
		o.Actions = []string{s.Action}
	}
	return o
}

type streamView struct {
	frame
	Databases []client.Database
	Selected  choice
	Actions   []string
	Narrowed  bool // not every change is shown
	Wrong     map[string]string
	Rows      []changeRow
	Looked    lookedAt
	First     uint64 // the oldest change that there is
	Newest    uint64
	Connect   string // address of the events; empty: this page is about the past
	Older     string // addresses of what is before and behind; empty: nothing
	Newer     string
	Now       string // back to what comes
	Idle      string // what an empty table says
}

// streamRows is how many changes a page shows.
const streamRows = 100

// streamPage shows the last changes, and those that come; or older ones.
func streamPage(c *visit) (framed, error) {
	list, err := c.api.Databases(c.ctx)
	if err != nil {
		return nil, err
	}
	q := c.r.URL.Query()
	v := &streamView{frame: frame{Title: "Stream", Nav: "stream"}, Databases: list, Selected: selectedBy(q), Actions: actionsShown(), Wrong: map[string]string{}}
	if len(list) == 0 {
		return v, nil
	}
	at := slices.IndexFunc(list, func(d client.Database) bool { return d.Name == v.Selected.Database })
	if v.Selected.Database != "" && at < 0 {
		return nil, fmt.Errorf("there is no database %q on this node: %w", v.Selected.Database, lockstep.ErrNotFound)
	}
	database := list[max(at, 0)]
	v.Selected.Database, v.First, v.Newest = database.Name, max(database.FirstSeq, 1), database.LastSeq
	s := &v.Selected
	v.Narrowed = s.Tables != "" || s.Action != "" || s.Key != "" || s.Filter != ""
	if s.patterns, err = pattern.Parse(s.tables()); err != nil {
		v.Wrong["tables"] = err.Error()
	}
	if err := v.check(c); err != nil {
		return nil, err
	}
	if len(v.Wrong) > 0 {
		return v, nil
	}
	return v, v.look(c, q)
}

// look reads the changes that the page shows.
func (v *streamView) look(c *visit, q url.Values) error {
	before, _ := strconv.ParseUint(q.Get("before"), 10, 63) // what is no number is not asked for
	after, _ := strconv.ParseUint(q.Get("after"), 10, 63)
	l := looking{api: c.api, selected: v.Selected, first: v.First, newest: v.Newest, most: streamRows}
	var err error
	switch {
	case before > 0:
		v.Looked, err = l.back(c.ctx, before)
	case after > 0:
		v.Looked, err = l.forward(c.ctx, after)
	default:
		if l.most, err = strconv.Atoi(v.Selected.From); err != nil || l.most < 0 || l.most > streamRows {
			l.most = 0
		}
		v.Looked, err = l.back(c.ctx, v.Newest+1)
		v.Connect = v.address(Prefix+"stream/events", "after", v.Newest)
	}
	if err != nil {
		return err
	}
	v.Rows = v.Looked.Rows
	v.links(before > 0 || after > 0)
	return nil
}

// check has the API look at the filter alone, so that what is wrong with it is told
// where its author wrote it.
func (v *streamView) check(c *visit) error {
	if v.Selected.Filter == "" {
		return nil
	}
	_, err := c.api.Try(c.ctx, v.Selected.Database, client.Trial{Filter: v.Selected.Filter, Limit: 1})
	if text := refusedAt(err, "body.filter"); text != "" {
		v.Wrong["filter"] = text
		return nil
	}
	return err
}

func (v *streamView) links(past bool) {
	if low := v.Looked.Low; low > v.First {
		v.Older = v.address(Prefix+"stream", "before", low)
	}
	if past {
		v.Now = v.address(Prefix+"stream", "", 0)
		if high := v.Looked.High; high < v.Newest {
			v.Newer = v.address(Prefix+"stream", "after", high)
		}
	}
	v.Idle = "No change yet. It will be here as soon as it is captured."
	switch {
	case v.Looked.Late:
		v.Idle = "Nothing was found in the time that a page has."
	case v.Looked.Looked > 0 && !v.Narrowed:
		v.Idle = "The last " + plural(v.Looked.Looked, "change is a row", "changes are rows") + " that a backfill read for one consumer: its page has them."
	}
	if v.Narrowed && !v.Looked.Late {
		v.Idle = "Nothing of the kind among " + plural(v.Looked.Looked, "change", "changes") + "."
		if !past {
			v.Idle += " What comes will be here."
		}
	}
}

func (v *streamView) address(page, name string, seq uint64) string {
	q := v.Selected.query()
	if name != "" {
		q.Set(name, strconv.FormatUint(seq, 10))
	}
	return page + "?" + q.Encode()
}
