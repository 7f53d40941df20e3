package pgdb

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// QuoteIdent returns an identifier of one or more parts, each in double quotes, for
// use in SQL text: QuoteIdent("we.ird", `a"b`) is "we.ird"."a""b".
func QuoteIdent(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// QuoteLiteral returns s as a string constant for use in SQL text, where a
// parameter cannot stand (ALTER PUBLICATION, COMMENT). Zero bytes, which Postgres'
// text cannot hold, are dropped.
func QuoteLiteral(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if !strings.Contains(s, `\`) {
		return quoted
	}
	// The E form means the same whatever standard_conforming_strings says. The
	// blank keeps it apart from an identifier in front of it.
	return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
}

var passwordPattern = regexp.MustCompile(`(?i)(password|sslpassword|passfile)\s*=\s*('(\\.|[^'])*'|[^\s&]+)`)

// Redact returns a connection string without what is secret in it, for logs and
// errors. It takes URLs and the keyword form (host=… password=…), valid or not.
func Redact(s string) string {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return passwordPattern.ReplaceAllString(s, "$1=xxxxx")
	}
	u, err := url.Parse(s)
	if err != nil {
		return redactMalformed(s)
	}
	if _, set := u.User.Password(); set {
		u.User = url.UserPassword(u.User.Username(), "xxxxx")
	}
	u.RawQuery = passwordPattern.ReplaceAllString(u.RawQuery, "$1=xxxxx")
	return u.String()
}

// redactMalformed drops everything between the scheme and the last @: with a bad
// escape or a raw @ in the password, nobody can say where it ends.
func redactMalformed(s string) string {
	scheme, rest, _ := strings.Cut(s, "://")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "xxxxx@" + rest[i+1:]
	}
	return scheme + "://" + passwordPattern.ReplaceAllString(rest, "$1=xxxxx")
}

func hasPoolSize(s string) bool { return strings.Contains(s, "pool_max_conns") }
