package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"lockstep/client"
)

// newDatabaseView is the form of a new database, and what is to be done in it first.
type newDatabaseView struct {
	frame
	Form      form
	Doubted   bool // the look at it found something: it may be stored all the same
	Unchecked bool // it is to be stored without a look
	Lines     string
	Variable  bool // the password comes from a variable, in the lines
	Prepare   []preparation
}

func databaseForm() form {
	return form{Groups: []group{
		{Title: "Which one", Fields: []field{
			{Name: "name", Label: "Name", As: asText, Holder: "shop", Hint: "Unique. Consumers, syncs and pages call it so."},
			{Name: "capture", Label: "Capture", As: asChoice, Options: []option{
				{"", "wal: changes of its tables"}, {"none", "none: syncs write to it"},
			}, Hint: "From the write-ahead log, or not at all."},
			{Name: "url", Label: "Connection", As: asSecret, Broad: true, Holder: "postgres://lockstep:password@db.example.com:5432/shop", Hint: "The URL with its password, directly to Postgres: a pooler cannot replicate. Sealed when it is stored, and never shown again."},
			{Name: "tables", Label: "Tables", As: asLines, Broad: true, Holder: "public.*\n-public.audit", Hint: patternHint},
		}},
		{Title: "Slot, publication and limits", Rare: true, Fields: []field{
			{Name: "slot", Label: "Slot", As: asText, Holder: "lockstep_shop", Hint: "Made when it is missing. Empty: lockstep_ and the name."},
			{Name: "publication", Label: "Publication", As: asText, Holder: "lockstep_shop", Hint: "Made when it is missing. Empty: lockstep_ and the name."},
			{Name: "int8", Label: "Columns of type int8", As: asChoice, Options: []option{{"", "As it is by default: number"}, {"string", "string: for readers that round large numbers"}}},
			{Name: "retain_wal", Label: "Log that the slot may hold back", As: asText, Holder: "50GB", Hint: "It is given up beyond that, so that the disk does not fill. 0: no limit."},
		}},
	}}
}

const patternHint = "One on each line. * stands for any name, a minus leaves out. Empty: every table but those of the system."

func newDatabase(c *visit) (framed, error) {
	values := c.r.URL.Query()
	values.Del("url") // addresses are kept by browsers and logs: no secret is taken from one
	return databaseEntry(c, values), nil
}

// databaseEntry makes the form with what was entered.
func databaseEntry(c *visit, values url.Values) *newDatabaseView {
	v := &newDatabaseView{frame: frame{Title: "Add a database", Nav: "databases"}, Form: databaseForm(), Unchecked: values.Get("unchecked") == "true"}
	v.Form.take(values, c.sealer)
	entered := map[string]string{}
	v.Form.fields(func(one *field) { entered[one.Name] = one.Value })
	to := addressOf(entered["url"])
	v.Lines = configurationOf(entered, to)
	v.Variable = strings.Contains(v.Lines, passwordVariable)
	if entered["capture"] != "none" {
		v.Prepare = preparations(to)
	}
	return v
}

// makeDatabase takes the form.
func makeDatabase(c *visit) {
	v := databaseEntry(c, c.r.Form)
	if c.r.PostFormValue("do") != "create" {
		c.show(http.StatusOK, "create-database", v)
		return
	}
	made, err := v.create(c)
	switch {
	case statusOf(err) == http.StatusUnauthorized:
		c.fail(err)
		return
	case err != nil:
		c.show(http.StatusUnprocessableEntity, "create-database", v)
		return
	}
	said := "Database " + made.Name + " is there, and its changes are captured from now on."
	if made.Capture == "none" {
		said = "Database " + made.Name + " is there, for syncs to write to."
	}
	if v.Unchecked {
		said = "Database " + made.Name + " is stored without a look at it. The node goes on trying to reach it."
	}
	c.leave(c.w, c.r, notice{Kind: "done", Text: said})
	c.go_(databaseAt(made.Name))
}

// create makes the database; what is wrong is noted in the form.
func (v *newDatabaseView) create(c *visit) (client.Database, error) {
	body, good := v.Form.body()
	if !good {
		return client.Database{}, fmt.Errorf("the form holds what is none of its fields'")
	}
	text, err := json.Marshal(body)
	if err != nil {
		return client.Database{}, fmt.Errorf("write what was entered: %w", err)
	}
	wanted := client.DatabaseDefinition{Unchecked: v.Unchecked}
	if err := json.Unmarshal(text, &wanted); err != nil {
		return client.Database{}, fmt.Errorf("read what was entered: %w", err)
	}
	made, err := c.api.CreateDatabase(c.ctx, wanted)
	if err != nil {
		v.Form.blame(err)
		v.Doubted = v.Unchecked || v.Form.checked()
	}
	return made, err
}

// checked reports whether a fault is one that the look at the database found.
func (f *form) checked() bool {
	found := false
	f.fields(func(one *field) {
		found = found || slices.ContainsFunc(one.Wrong, func(m string) bool { return strings.HasPrefix(m, checkPrefix) })
	})
	return found
}

// checkPrefix begins what a look at a database found: "check wal_level: …".
const checkPrefix = "check "

// told is a message of the API in two parts: words, and what to copy.
type told struct{ Words, Remedy string }

// tell parts a message from the SQL or the commands at its end.
func tell(message string) told {
	words := message
	if rest, ok := strings.CutPrefix(message, checkPrefix); ok {
		if _, after, ok := strings.Cut(rest, ": "); ok {
			words = after
		}
	}
	for at := 0; ; {
		next := strings.Index(words[at:], "; ")
		if next < 0 {
			return told{Words: words}
		}
		at += next + 2
		if remedial(words[at:]) {
			return told{Words: words[:at-2], Remedy: words[at:]}
		}
	}
}

// remedial reports whether a text is SQL or commands: it begins as they do.
func remedial(text string) bool {
	for _, start := range []string{"# ", "-- ", "ALTER ", "CREATE ", "DROP ", "GRANT ", "SELECT ", "REVOKE ", "ROLLBACK "} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}

// Told is what is wrong with the field, for people.
func (f field) Told() []told {
	list := make([]told, 0, len(f.Wrong))
	for _, message := range f.Wrong {
		list = append(list, tell(message))
	}
	return list
}
