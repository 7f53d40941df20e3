package console

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// preparation is something to be done in the database.
type preparation struct{ What, SQL string }

// databaseAddress is what a connection's URL says that may be shown.
type databaseAddress struct {
	shown          string // with a variable in the place of the password; empty: nothing is shown
	user, database string
}

// passwordVariable stands in the place of a password.
const passwordVariable = "${DATABASE_PASSWORD}"

// addressOf reads a URL. Of one that is not clearly parted, nothing is shown: what looks
// like its host might be a piece of its password.
func addressOf(text string) databaseAddress {
	unknown := databaseAddress{user: "lockstep", database: "app"}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || strings.Count(text, "@") > 1 || strings.Contains(text, "#") {
		return unknown
	}
	if strings.Contains(text, "@") != (u.User != nil) {
		return unknown
	}
	to := databaseAddress{user: "lockstep", database: "app"}
	who := ""
	if u.User != nil && u.User.Username() != "" {
		to.user = u.User.Username()
		who = url.User(to.user).String()
	}
	if u.User != nil {
		if _, ok := u.User.Password(); ok {
			who += ":" + passwordVariable
		}
	}
	if len(u.Path) > 1 {
		to.database = u.Path[1:]
	}
	to.shown = u.Scheme + "://"
	if who != "" {
		to.shown += who + "@"
	}
	to.shown += u.Host + u.EscapedPath()
	// Of the parameters, only what is known to be no secret.
	open := url.Values{}
	for _, name := range []string{"host", "port", "sslmode", "sslrootcert", "target_session_attrs"} {
		if v := u.Query().Get(name); v != "" {
			open.Set(name, v)
		}
	}
	if len(open) > 0 {
		to.shown += "?" + open.Encode()
	}
	return to
}

// configurationOf is what would stand in lockstep.yml. A password is not in it.
func configurationOf(entered map[string]string, to databaseAddress) string {
	name, address := entered["name"], to.shown
	if name == "" {
		name = "app"
	}
	if address == "" {
		address = "postgres://lockstep:" + passwordVariable + "@db.example.com:5432/app"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "databases:\n  - name: %s\n    url: %s\n", yamlText(name), strconv.Quote(address))
	for _, key := range []string{"capture", "slot", "publication", "int8", "retain_wal"} {
		if entered[key] != "" {
			fmt.Fprintf(&b, "    %s: %s\n", key, yamlText(entered[key]))
		}
	}
	var tables []string
	for _, t := range listed(entered["tables"]) {
		tables = append(tables, yamlText(t))
	}
	if len(tables) > 0 {
		fmt.Fprintf(&b, "    tables: [%s]\n", strings.Join(tables, ", "))
	}
	return b.String()
}

func preparations(to databaseAddress) []preparation {
	role := quotedName(to.user)
	return []preparation{
		{"A role that may replicate. It asks for a password: choose a long one.", "CREATE ROLE " + role + " LOGIN REPLICATION;\n\\password " + role},
		{"Logical decoding. It needs a restart of Postgres.", "ALTER SYSTEM SET wal_level = logical;"},
		{"A limit for what a slot may keep back, so that a node that is away does not fill the disk.", "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';\nSELECT pg_reload_conf();"},
		{"The publication and the schema for Lockstep's own tables.", "GRANT CREATE ON DATABASE " + quotedName(to.database) + " TO " + role + ";\nCREATE SCHEMA IF NOT EXISTS lockstep AUTHORIZATION " + role + ";"},
		{"Its tables: to publish a table takes its owner's rights, to backfill it takes reading it.", "GRANT USAGE ON SCHEMA public TO " + role + ";\nGRANT SELECT ON ALL TABLES IN SCHEMA public TO " + role + ";\n-- and the rights of whoever owns the tables:\n-- GRANT their_owner TO " + role + ";"},
	}
}

func quotedName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return sqlName(name)
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
