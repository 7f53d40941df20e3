package console

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lockstep/client"
)

// databasePages registers pages of databases: the list, and one with its slot and its tables.
func (s *Console) databasePages() {
	s.page("databases", "databases", databasesPage)
	s.page("databases/{name}", "database", databasePage)
	s.action("databases/{name}/repair", repairGaps)
	s.entry("databases/{name}", changeDatabase)
}

type databasesView struct {
	frame
	Databases []client.Database
}

func databasesPage(c *visit) (framed, error) {
	list, err := c.api.Databases(c.ctx)
	if err != nil {
		return nil, err
	}
	return &databasesView{frame: frame{Title: "Databases", Nav: "databases", Live: Prefix + "databases"}, Databases: list}, nil
}

// tablesShown is a page of tables, tablesSearched how many a search reads at most.
const (
	tablesShown    = 100
	tablesSearched = 10_000
)

type databaseView struct {
	frame
	Database  client.Database
	Filled    int    // percent of the log that the slot may keep; -1: no limit
	End       string // SQL that ends the oldest transaction
	Backfills []client.Backfill
	Repairing bool // a repair of gaps is under way

	Search  string
	Tables  []tableView
	Total   int
	Found   int    // tables that match the search
	More    string // address of the next page
	First   bool   // this is the first page
	Skipped bool   // there are more tables than a search reads
	Seen    []client.SchemaChange
	Missing string // why there are no sizes, or no tables at all
	Form    form   // of the patterns
}

// tableView is a table with what its identity means for those who read its changes.
type tableView struct {
	client.Table
	Key     string
	Rows    string // as Postgres estimates
	Size    string
	Meaning string
	Alter   string // SQL for old values; empty: nothing to gain
	Pattern string
}

// recentBackfills is how many of a database's backfills are recent.
const recentBackfills = 10

func databasePage(c *visit) (framed, error) {
	name := c.r.PathValue("name")
	d, err := c.api.Database(c.ctx, name)
	if err != nil {
		return nil, err
	}
	here := databaseAt(name)
	v := &databaseView{
		frame: frame{Title: name, Nav: "databases", Live: here}, Database: d,
		Search: strings.TrimSpace(c.r.FormValue("q")), Filled: filledOf(d), Form: patternsForm(d),
	}
	if t := d.OldestTransaction; t != nil {
		v.End = fmt.Sprintf("SELECT pid, usename, application_name, state, query FROM pg_stat_activity WHERE pid = %d; -- what it is\nSELECT pg_terminate_backend(%d); -- ends it, and undoes what it did", t.PID, t.PID)
	}
	if v.Backfills, err = c.api.Backfills(c.ctx, client.BackfillFilter{Database: name}); err != nil {
		return nil, err
	}
	for i := range v.Backfills {
		v.Repairing = v.Repairing || v.Backfills[i].Gap && !v.Backfills[i].Ended()
	}
	v.Backfills = v.Backfills[:min(len(v.Backfills), recentBackfills)]
	if c.partly() {
		return v, nil
	}
	return v, v.tables(c, here)
}

func databaseAt(name string) string { return Prefix + "databases/" + escape(name) }

// filledOf says how much of what the slot may keep is kept, in percent; -1: without limit.
func filledOf(d client.Database) int {
	if d.Slot == nil || d.Slot.SafeBytes == nil {
		return -1
	}
	whole := d.Slot.RetainedBytes + max(*d.Slot.SafeBytes, 0)
	return int(100 * d.Slot.RetainedBytes / max(whole, 1))
}

// tables reads a page of tables, or those that the search finds.
func (v *databaseView) tables(c *visit, here string) error {
	cursor := c.r.FormValue("after")
	v.First = cursor == ""
	if v.Search != "" {
		return v.search(c)
	}
	list, err := c.api.Tables(c.ctx, v.Database.Name, client.Page{Limit: tablesShown, Cursor: cursor})
	if err != nil {
		return v.without(err)
	}
	v.Total, v.Seen, v.Missing = list.Total, list.SchemaChanges, list.Unmeasured
	for _, t := range list.Data {
		v.Tables = append(v.Tables, viewOfTable(t))
	}
	if list.Next != "" {
		v.More = here + "?after=" + queryEscape(list.Next) + "#tables"
	}
	return nil
}

// search looks for tables by a part of their names.
func (v *databaseView) search(c *visit) error {
	wanted := strings.ToLower(v.Search)
	p := client.Page{Limit: 1000}
	for read := 0; ; {
		list, err := c.api.Tables(c.ctx, v.Database.Name, p)
		if err != nil {
			return v.without(err)
		}
		if read == 0 {
			v.Total, v.Seen, v.Missing = list.Total, list.SchemaChanges, list.Unmeasured
		}
		for _, t := range list.Data {
			if !strings.Contains(strings.ToLower(t.Table), wanted) {
				continue
			}
			if v.Found++; v.Found <= tablesShown {
				v.Tables = append(v.Tables, viewOfTable(t))
			}
		}
		read += len(list.Data)
		if p.Cursor = list.Next; p.Cursor == "" {
			return nil
		}
		if read >= tablesSearched {
			v.Skipped = true
			return nil
		}
	}
}

// without shows the page without its tables: the slot is worth looking at while the
// database is away.
func (v *databaseView) without(err error) error {
	if statusOf(err) == http.StatusUnauthorized {
		return err
	}
	v.Missing = words(err)
	return nil
}

func viewOfTable(t client.Table) tableView {
	v := tableView{Table: t, Key: strings.Join(t.KeyColumns, ", "), Pattern: tablePattern(t.Schema, t.Name)}
	if t.EstimatedRows != nil {
		v.Rows = count(*t.EstimatedRows)
	}
	if t.SizeBytes != nil {
		v.Size = byteText(*t.SizeBytes)
	}
	full := "ALTER TABLE " + sqlName(t.Schema) + "." + sqlName(t.Name) + " REPLICA IDENTITY FULL;"
	switch {
	case t.Remedy != "":
		v.Meaning = "" // the reason says it
	case t.ReplicaIdentity == "full":
		v.Meaning = "updates and deletes carry the whole old row"
	case t.ReplicaIdentity == "index":
		v.Meaning, v.Alter = "of old rows, the columns of an index are known, and nothing else", full
	case t.ReplicaIdentity == "nothing" && t.KeyKind == "row":
		v.Meaning, v.Alter = "Postgres refuses updates and deletes of a table without key and identity", full
	case t.ReplicaIdentity == "nothing":
		v.Meaning, v.Alter = "deletes and changed keys do not tell which row it was", full
	default:
		v.Meaning, v.Alter = "updates carry no old values, deletes only the key", full
	}
	if v.Key == "" {
		v.Key = "none: the whole row"
	}
	return v
}

// tablePattern names exactly one table, for a selection.
func tablePattern(schema, name string) string {
	part := func(s string) string {
		if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" {
			return s
		}
		return sqlName(s)
	}
	return part(schema) + "." + part(name)
}

// sqlName quotes a name as SQL does.
func sqlName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// repairGaps has what the open gaps may have cost read again.
func repairGaps(c *visit) (string, error) {
	b, err := c.api.RepairGaps(c.ctx, c.r.PathValue("name"))
	if err != nil {
		return "", err
	}
	tables := make([]string, 0, len(b.Tables))
	for _, t := range b.Tables {
		tables = append(tables, t.Name)
	}
	return "The repair has begun: every consumer gets the rows of " + cmp.Or(shortList(tables, 5), "every table") + " again.", nil
}

// shortList writes the first names of a list, and how many more there are.
func shortList(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %s more", strings.Join(names[:most], ", "), count(len(names)-most))
}

// partly says whether only the part of the page that changes is asked for.
func (c *visit) partly() bool { return c.r.Header.Get("HX-Target") == "live" }

// refusedAt returns what the API says is wrong at a place of a request, such as
// query.filter; empty: nothing there.
func refusedAt(err error, location string) string {
	problem, ok := errors.AsType[*client.Problem](err)
	if !ok {
		return ""
	}
	for _, e := range problem.Errors {
		if e.Location == location {
			return e.Message
		}
	}
	return ""
}

// Age is how long the oldest transaction has been open, in words.
func (v *databaseView) Age() string {
	if v.Database.OldestTransaction == nil {
		return ""
	}
	return spanText(time.Duration(v.Database.OldestTransaction.AgeS) * time.Second)
}

// Left writes how long a backfill will take.
func (v *databaseView) Left(seconds int64) string {
	return "about " + spanText(time.Duration(seconds)*time.Second)
}

// Safe is how much more may be written before the slot is lost; empty: without limit.
func (v *databaseView) Safe() string {
	if v.Database.Slot == nil || v.Database.Slot.SafeBytes == nil {
		return ""
	}
	return byteText(*v.Database.Slot.SafeBytes)
}

// WALMeaning says what the state of the slot's log means.
func (v *databaseView) WALMeaning() string {
	if v.Database.Slot == nil {
		return ""
	}
	return map[string]string{
		"reserved":   "all of it is there",
		"extended":   "more than max_wal_size is kept for it; it is still there",
		"unreserved": "some of it is about to be removed: the slot will be lost unless it moves",
		"lost":       "some of it was removed: the slot cannot be used any more",
	}[v.Database.Slot.WALStatus]
}
