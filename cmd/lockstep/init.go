package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/config"
	"lockstep/internal/events"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/cluster"
)

type initCmd struct {
	Events initEventsCmd `cmd:"" help:"Make an events table: its rows go to subscribers at /events."`
}

type initEventsCmd struct {
	Config   string `short:"c" placeholder:"FILE" help:"The configuration; default lockstep.yml here, or the defaults when there is none."`
	Database string `placeholder:"NAME" help:"The database, by its name in the configuration. Default: that of events, or the first one."`
	Table    string `placeholder:"TABLE" help:"What to call it. Default: as configured, or public.events."`
	Print    bool   `help:"Write the SQL, and do nothing."`
}

// eventsSQL makes an events table.
func eventsSQL(t events.Table) string {
	schema := ""
	if t.Schema != "public" {
		schema = "CREATE SCHEMA IF NOT EXISTS " + pgdb.QuoteIdent(t.Schema) + ";\n"
	}
	return schema + "CREATE TABLE " + pgdb.QuoteIdent(t.Schema, t.Name) + ` (
  id         bigserial PRIMARY KEY,
  type       text NOT NULL,
  timestamp  timestamptz NOT NULL DEFAULT now(),
  subscriber text NOT NULL,
  payload    jsonb NOT NULL
);
`
}

// Run makes the table, unless it is there.
func (x *initEventsCmd) Run(ctx context.Context, s streams, p printer) error {
	cfg, err := config.Load(x.Config, configOptions(s))
	if problems, ok := errors.AsType[config.Problems](err); ok {
		_, _ = fmt.Fprintln(s.err, problems.Error())
		return usageError{errQuiet}
	}
	if err != nil {
		return err
	}
	d, err := x.database(cfg)
	if err != nil {
		return usageError{err}
	}
	name := x.Table
	if name == "" {
		name = cfg.Events.Table
	}
	if name == "" {
		name = "public.events"
	}
	table, err := events.ParseTable(name)
	if err != nil {
		return usageError{fmt.Errorf("--table: %w", err)}
	}
	if x.Print {
		_, err := io.WriteString(s.out, eventsSQL(table))
		return err
	}
	made, err := makeEvents(ctx, cfg, d, table)
	if err != nil {
		return fmt.Errorf("make table %s in database %s: %w", table, d.Name, err)
	}
	return x.tell(p, cfg, d, table, made)
}

// tell says what was done, and what is to be done.
func (x *initEventsCmd) tell(p printer, cfg *config.Config, d config.Database, t events.Table, made bool) error {
	result := struct {
		Database string `json:"database"`
		Table    string `json:"table"`
		Created  bool   `json:"created"`
	}{d.Name, t.String(), made}
	if p.format != "table" {
		if err := p.result(result, table{}); err != nil {
			return err
		}
	} else {
		said := "created " + t.String() + " in database " + d.Name
		if !made {
			said = t.String() + " is there already in database " + d.Name + ", with the columns that it needs"
		}
		if _, err := fmt.Fprintln(p.out, said); err != nil {
			return err
		}
	}
	patterns, err := pattern.Parse(d.Tables)
	switch {
	case err != nil:
		return err
	case d.Capture == config.CaptureNone || !patterns.Match(t.Schema, t.Name):
		p.note("it is not captured: add it to tables of database %s in the configuration", d.Name)
	case t.Name != "events" && cfg.Events.Table == "":
		p.note("tell the node of it in the configuration: events: {database: %s, table: %s}", d.Name, t)
	}
	p.note("follow:  curl -N http://%s/events -H 'X-Consumer-Id: toto'", cfg.Listen)
	p.note("then:    INSERT INTO %s (type, subscriber, payload) VALUES ('hello', 'toto', '{\"n\": 1}');", pgdb.QuoteIdent(t.Schema, t.Name))
	return nil
}

func (x *initEventsCmd) database(cfg *config.Config) (config.Database, error) {
	name := x.Database
	if name == "" {
		name = cfg.Events.Database
	}
	names := make([]string, len(cfg.Databases))
	for i, d := range cfg.Databases {
		if d.Name == name || name == "" {
			return d, nil
		}
		names[i] = d.Name
	}
	return config.Database{}, fmt.Errorf("there is no database %s in the configuration: use %s", name, strings.Join(names, ", "))
}

// makeEvents makes the table, and reports false when one with its columns is there.
func makeEvents(ctx context.Context, cfg *config.Config, d config.Database, table events.Table) (made bool, err error) {
	address, stop, err := reachable(ctx, cfg, d)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pool, err := pgdb.Open(ctx, address, "lockstep init")
	if err != nil {
		return false, err
	}
	defer pool.Close()
	const columns = `
SELECT a.attname::text
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attnum > 0 AND NOT a.attisdropped`
	rows, err := pool.Query(ctx, columns, table.Schema, table.Name)
	if err != nil {
		return false, err
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, err
	}
	if len(there) == 0 {
		_, err := pool.Exec(ctx, eventsSQL(table))
		return err == nil, err
	}
	for _, column := range []string{"id", "type", "subscriber", "payload"} {
		if !slices.Contains(there, column) {
			return false, fmt.Errorf("there is a table of that name without the column %s: choose another name with --table: %w", column, lockstep.ErrConflict)
		}
	}
	return false, nil
}

// reachable returns where a database is. A private one whose node does not run is run
// until stop is called.
func reachable(ctx context.Context, cfg *config.Config, d config.Database) (address string, stop func() error, err error) {
	none := func() error { return nil }
	if d.URL != "" {
		return d.URL.Reveal(), none, nil
	}
	dir := filepath.Join(cfg.DataDir, "postgres")
	address, err = cluster.RunningURL(dir, d.Name)
	if err == nil || !errors.Is(err, lockstep.ErrUnavailable) {
		return address, none, err
	}
	private, err := cluster.Start(ctx, cluster.Config{Dir: dir, Bin: cfg.PGBin, Logger: quiet()})
	if err != nil {
		return "", none, err
	}
	stop = func() error { return private.Stop(context.WithoutCancel(ctx)) }
	if err := private.CreateDatabase(ctx, d.Name); err != nil {
		return "", none, errors.Join(err, stop())
	}
	return private.URL(d.Name), stop, nil
}
