package console

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// newDatabaseView says how to add a database: by lines of the configuration.
type newDatabaseView struct {
	frame
	Name, URL, Capture, Tables string
	Address                    string // URL without its password
	Variable                   bool   // the password comes from a variable
	Lines                      string // for lockstep.yml
	Prepare                    []preparation
}

// preparation is something to be done in the database.
type preparation struct{ What, SQL string }

func newDatabase(c *visit) (framed, error) {
	q := c.r.URL.Query()
	v := &newDatabaseView{
		frame: frame{Title: "Add a database", Nav: "databases"},
		Name:  strings.TrimSpace(q.Get("name")), URL: strings.TrimSpace(q.Get("url")), Capture: q.Get("capture"), Tables: q.Get("tables"),
	}
	v.Address = withoutPassword(v.URL)
	v.Variable = v.Address != v.URL
	v.Lines = v.configuration()
	if v.Capture != "none" {
		v.Prepare = v.preparations()
	}
	return v, nil
}

// configuration is what stands in lockstep.yml. A password is not in it.
func (v *newDatabaseView) configuration() string {
	name, address := v.Name, v.Address
	if name == "" {
		name = "app"
	}
	if address == "" {
		address = "postgres://lockstep@db.example.com:5432/app"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "databases:\n  - name: %s\n    url: %s\n", yamlText(name), strconv.Quote(address))
	if v.Capture == "none" {
		b.WriteString("    capture: none\n")
	}
	var tables []string
	for _, t := range listed(v.Tables) {
		tables = append(tables, yamlText(t))
	}
	if len(tables) > 0 {
		fmt.Fprintf(&b, "    tables: [%s]\n", strings.Join(tables, ", "))
	}
	return b.String()
}

// withoutPassword puts a variable in the place of a password.
func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	if _, ok := u.User.Password(); !ok {
		return address
	}
	// The braces would be escaped by url.URL.
	before, after, _ := strings.Cut(address, u.User.String()+"@")
	if after == "" {
		return address
	}
	return before + url.User(u.User.Username()).String() + ":${DATABASE_PASSWORD}@" + after
}

// user is who captures, as the address says.
func (v *newDatabaseView) user() string {
	u, err := url.Parse(v.URL)
	if err != nil || u.User == nil || u.User.Username() == "" {
		return "lockstep"
	}
	return u.User.Username()
}

func (v *newDatabaseView) preparations() []preparation {
	database := "app"
	if u, err := url.Parse(v.URL); err == nil && len(u.Path) > 1 {
		database = u.Path[1:]
	}
	role := quotedName(v.user())
	list := []preparation{
		{"A role that may replicate. It asks for a password: choose a long one.", "CREATE ROLE " + role + " LOGIN REPLICATION;\n\\password " + role},
		{"Logical decoding. It needs a restart of Postgres.", "ALTER SYSTEM SET wal_level = logical;"},
		{"A limit for what a slot may keep back, so that a node that is away does not fill the disk.", "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';\nSELECT pg_reload_conf();"},
		{"The publication and the schema for Lockstep's own tables.", "GRANT CREATE ON DATABASE " + quotedName(database) + " TO " + role + ";\nCREATE SCHEMA IF NOT EXISTS lockstep AUTHORIZATION " + role + ";"},
		{"Its tables: to publish a table takes its owner's rights, to backfill it takes reading it.", "GRANT USAGE ON SCHEMA public TO " + role + ";\nGRANT SELECT ON ALL TABLES IN SCHEMA public TO " + role + ";\n-- and the rights of whoever owns the tables:\n-- GRANT their_owner TO " + role + ";"},
	}
	return list
}

func quotedName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

var (
	plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
	plainYAML = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_./:@-]*$`)
)

// yamlText quotes a text for YAML where it needs it. What JSON writes is YAML.
func yamlText(text string) string {
	if plainYAML.MatchString(text) && !strings.Contains(text, ": ") && !strings.HasSuffix(text, ":") {
		switch strings.ToLower(text) {
		case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		default:
			return text
		}
	}
	return strconv.Quote(text)
}
