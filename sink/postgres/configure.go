package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/sink"
)

// configure checks the configuration and fills in the defaults.
func configure(c *Config) (*pgconn.Config, error) {
	var wrong []error
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	c.Form = or(c.Form, Mapped)
	c.Unknown = or(c.Unknown, Refuse)
	c.SeqColumn = or(c.SeqColumn, DefaultSeqColumn)
	c.KeepDeleted = or(c.KeepDeleted, DefaultKeepDeleted)
	c.Connections = or(c.Connections, DefaultConnections)
	if c.Connections < 0 {
		note("connections must not be negative")
	}
	if c.Form != Mapped && c.Form != Generic {
		note("form %q is not known: use mapped or generic", c.Form)
	}
	if c.Unknown != Refuse && c.Unknown != Ignore {
		note("unknown: %q is not known: use refuse or ignore", c.Unknown)
	}
	if !slices.Contains([]Guard{"", GuardColumn, GuardTable}, c.Guard) {
		note("guard %q is not known: use column or table", c.Guard)
	}
	if c.Form == Generic {
		wrong = append(wrong, configureGeneric(c))
	}
	c.Table = or(c.Table, "{schema}.{table}")
	if _, err := parseName(c.Table); err != nil {
		note("table: %w", err)
	}
	if c.Positions != "" {
		if _, err := parseName(c.Positions); err != nil || templated(c.Positions) {
			note("positions: expected schema.table")
		}
	}
	connect, err := connection(c)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return nil, fmt.Errorf("postgres: %w: %w", lockstep.ErrInvalid, err)
	}
	return connect, nil
}

// configureGeneric refuses what the generic form decides by itself.
func configureGeneric(c *Config) error {
	c.Table = or(c.Table, "public."+DefaultRecords)
	if c.Guard != "" || c.SoftDelete != "" || len(c.Key) > 0 || len(c.Columns) > 0 || c.SeqColumn != DefaultSeqColumn {
		return errors.New("form generic has a key, a seq and a mark for deleted records of its own: leave out key, columns, guard, seq_column and soft_delete")
	}
	c.Unknown = Ignore
	return nil
}

// connection reads the URL. What the parser says is not repeated: it quotes the URL.
func connection(c *Config) (*pgconn.Config, error) {
	if strings.TrimSpace(c.URL) == "" {
		return nil, errors.New("url: say where the database is: postgres://user:password@host:5432/database")
	}
	connect, err := pgconn.ParseConfig(c.URL)
	if err != nil {
		return nil, errors.New("url: cannot be read: expected postgres://user:password@host:5432/database, and files that it names must be there")
	}
	if connect.RuntimeParams["application_name"] == "" {
		connect.RuntimeParams["application_name"] = "lockstep"
	}
	if c.ConnectTimeout > 0 {
		connect.ConnectTimeout = c.ConnectTimeout
	}
	connect.ConnectTimeout = or(connect.ConnectTimeout, DefaultConnectTimeout)
	return connect, nil
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// name is a table's name.
type name struct{ schema, table string }

// String returns the name quoted, for SQL and for people.
func (n name) String() string { return quote(n.schema) + "." + quote(n.table) }

// parseName reads schema.table, in which parts may be quoted; public is the default.
func parseName(text string) (name, error) {
	var parts []string
	for rest := text; ; {
		part, after, err := parsePart(rest)
		if err != nil {
			return name{}, err
		}
		parts = append(parts, part)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch len(parts) {
	case 1:
		return name{"public", parts[0]}, nil
	case 2:
		return name{parts[0], parts[1]}, nil
	}
	return name{}, fmt.Errorf("%q: expected schema.table", text)
}

// parsePart reads one part; after begins with the dot behind it.
func parsePart(text string) (part, after string, err error) {
	if !strings.HasPrefix(text, `"`) {
		part, _, _ = strings.Cut(text, ".")
		if part == "" || strings.Contains(part, `"`) {
			return "", "", fmt.Errorf("%q: expected schema.table", text)
		}
		return part, text[len(part):], nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != '"' {
			b.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		if after = text[i+1:]; b.Len() == 0 || after != "" && after[0] != '.' {
			break
		}
		return b.String(), after, nil
	}
	return "", "", fmt.Errorf("%q: the quotes are not in order", text)
}

func templated(text string) bool {
	return strings.Contains(text, "{schema}") || strings.Contains(text, "{table}") || strings.Contains(text, "{database}")
}

// targetOf returns the target of a message. What is put in is one part's text,
// whatever dots or quotes it has.
func (c *Config) targetOf(m *sink.Message) name {
	n, _ := parseName(c.Table) // New has read it
	if !templated(c.Table) {
		return n
	}
	in := strings.NewReplacer("{schema}", m.Schema, "{table}", m.Table, "{database}", m.Database)
	return name{in.Replace(n.schema), in.Replace(n.table)}
}

func quote(ident string) string { return `"` + strings.ReplaceAll(ident, `"`, `""`) + `"` }

func literal(text string) string {
	if strings.Contains(text, `\`) {
		return ` E'` + strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\\`), `'`, `''`) + `'`
	}
	return `'` + strings.ReplaceAll(text, `'`, `''`) + `'`
}
