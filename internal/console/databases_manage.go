package console

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"lockstep"
	"lockstep/client"
)

// gonePage says what is left of a deleted database, and how to drop it.
type gonePage struct {
	frame
	Name    string
	Dropped []string
	Left    []told
}

// patternsForm is the form that changes which tables are captured.
func patternsForm(d client.Database) form {
	return form{Groups: []group{{Title: "Which tables are captured", Fields: []field{{
		Name: "tables", Label: "Tables", As: asLines, Broad: true, Holder: "public.*\n-public.audit", Hint: patternHint, Value: strings.Join(d.Patterns, "\n"),
	}}}}}
}

// Editable reports whether it was made by API, and is changed and deleted here.
func (v *databaseView) Editable() bool { return v.Database.ManagedBy == "api" }

// Where says where the database is; empty: that is not told.
func (v *databaseView) Where() string {
	at := v.Database.Connection
	switch {
	case at == nil:
		return ""
	case strings.HasPrefix(at.Host, "/"):
		return at.Database + " in " + at.Host + ", port " + fmt.Sprint(at.Port) + ", as " + at.User
	}
	return at.Database + " on " + at.Host + ":" + fmt.Sprint(at.Port) + ", as " + at.User
}

// changeDatabase takes what the page of a database can do to it.
func changeDatabase(c *visit) {
	switch c.r.PostFormValue("do") {
	case "tables":
		changePatterns(c)
	case "delete":
		deleteDatabase(c)
	default:
		c.go_(databaseAt(c.r.PathValue("name")))
	}
}

// changePatterns gives the database the patterns that were entered. With a fault the page
// comes back, with what was entered.
func changePatterns(c *visit) {
	name := c.r.PathValue("name")
	entered := patternsForm(client.Database{})
	entered.take(c.r.Form, c.sealer)
	tables := listed(entered.Groups[0].Fields[0].Value)
	_, err := c.api.UpdateDatabase(c.ctx, name, tables)
	if err == nil {
		said := "From now on every table of " + name + " is captured but those of the system."
		if len(tables) > 0 {
			said = "From now on these tables of " + name + " are captured: " + shortList(tables, 20) + "."
		}
		c.leave(c.w, c.r, notice{Kind: "done", Text: said})
		c.go_(databaseAt(name))
		return
	}
	page, failed := databasePage(c)
	v, ok := page.(*databaseView)
	if failed != nil || !ok || statusOf(err) == http.StatusUnauthorized {
		c.fail(err)
		return
	}
	entered.blame(err)
	v.Form = entered
	c.show(http.StatusUnprocessableEntity, "database", v)
}

// deleteDatabase deletes a database whose name was typed. What is left in it is shown with
// the SQL that drops it; with nothing left, the list is.
func deleteDatabase(c *visit) {
	name := c.r.PathValue("name")
	if typed := strings.TrimSpace(c.r.PostFormValue("typed")); typed != name {
		c.leave(c.w, c.r, notice{Kind: "failed", Text: fmt.Sprintf("Nothing was deleted: the name that was typed is not %q.", name)})
		c.go_(databaseAt(name))
		return
	}
	slot := client.DropSlot
	if c.r.PostFormValue("slot") == "keep" {
		slot = client.KeepSlot
	}
	gone, err := c.api.DeleteDatabase(c.ctx, name, slot)
	switch {
	case statusOf(err) == http.StatusUnauthorized:
		c.fail(err)
	case errors.Is(err, lockstep.ErrNotFound):
		c.leave(c.w, c.r, notice{Kind: "failed", Text: "Database " + name + " is not there any more: somebody else has deleted it."})
		c.go_(Prefix + "databases")
	case err != nil:
		c.leave(c.w, c.r, notice{Kind: "failed", Text: sentence(words(err))})
		c.go_(databaseAt(name))
	case len(gone.Left) > 0:
		v := &gonePage{frame: frame{Title: name + " is deleted", Nav: "databases"}, Name: name, Dropped: gone.Dropped}
		for _, one := range gone.Left {
			v.Left = append(v.Left, tell(one))
		}
		c.show(http.StatusOK, "database-gone", v)
	default:
		said := "Database " + name + " is deleted. Nothing was left in it."
		if len(gone.Dropped) > 0 {
			said = "Database " + name + " is deleted. Dropped there: " + strings.Join(gone.Dropped, ", ") + "."
		}
		c.leave(c.w, c.r, notice{Kind: "done", Text: said})
		c.go_(Prefix + "databases")
	}
}
