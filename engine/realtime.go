package engine

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/obs"
	"lockstep/internal/realtime"
	"lockstep/internal/stage"
	"lockstep/internal/stream"
)

// openRealtime prepares the protocol of Supabase Realtime over the logs.
func (e *Engine) openRealtime(context.Context) (func() error, error) {
	e.realtime = realtime.New(realtime.Config{
		Log: e.realtimeLog, Database: e.realtimeDatabase, Types: e.columnTypes, Keys: e.keyColumns, Moving: e.moving, Authorize: e.authorizeReader, Open: e.tokens.Open, AllowedOrigins: e.cfg.CORS,
		Logger: e.Logger.With(obs.KeyStage, "realtime"),
	})
	return nil, nil
}

// realtimeStage stops before the API does, which waits for open sockets.
func (e *Engine) realtimeStage() stage.Stage {
	return stage.Stage{Name: "realtime", Run: e.realtime.Run, Grace: 12 * time.Second}
}

// realtimeDatabase is the one that the URL names, or the first that is captured.
func (e *Engine) realtimeDatabase(params url.Values) string {
	if name := params.Get("database"); name != "" {
		return name
	}
	for _, d := range e.databases.all() {
		if d.capture != nil {
			return d.Name
		}
	}
	return e.home().Name
}

func (e *Engine) captured(name string) (*database, error) {
	d := e.database(name)
	if d == nil && !e.control.loaded() {
		return nil, fmt.Errorf("database %q: the databases made by API are not known yet: %w", name, lockstep.ErrUnavailable)
	}
	if d == nil || d.capture == nil {
		return nil, fmt.Errorf("database %q is not captured by this node: %w", name, lockstep.ErrNotFound)
	}
	return d, nil
}

func (e *Engine) realtimeLog(name string) (realtime.Log, error) {
	d, err := e.captured(name)
	if err != nil {
		return nil, err
	}
	return realtimeLog{d.log}, nil
}

// realtimeLog gives realtime a log in its own words.
type realtimeLog struct{ *stream.Log }

// Reader implements [realtime.Log].
func (l realtimeLog) Reader(from uint64) realtime.Reader {
	return realtimeReader{l.Log.Reader(from)}
}

type realtimeReader struct{ *stream.Reader }

// Next implements [realtime.Reader].
func (r realtimeReader) Next(ctx context.Context) (*lockstep.Batch, error) {
	b, err := r.Reader.Next(ctx)
	if corrupt, ok := errors.AsType[*stream.CorruptError](err); ok {
		return b, &realtime.DamageError{First: corrupt.First, Last: corrupt.Last, Err: err}
	}
	return b, err
}

// moving answers when what is committed from now on has a higher seq than it returns.
func (e *Engine) moving(ctx context.Context, name string) (uint64, error) {
	d, err := e.captured(name)
	if err != nil {
		return 0, err
	}
	return d.reach(ctx)
}

// authorizeReader checks the token of a client of realtime.
func (e *Engine) authorizeReader(_ context.Context, token string) (realtime.Claims, error) {
	if e.tokens.Open() {
		token = "" // clients always send a key, also where nobody asks for one
	}
	who, err := e.tokens.Authenticate(token)
	if err != nil {
		return realtime.Claims{}, err
	}
	return realtime.Claims{Name: who.Name, Read: who.Scopes.Allows(auth.NeedRead, "", "")}, nil
}

// columnTypes returns the name of each column's type, of a domain that of its base.
func (e *Engine) columnTypes(ctx context.Context, name, schema, table string) (map[string]string, error) {
	const query = `
		WITH RECURSIVE base (attname, oid) AS (
			SELECT a.attname, a.atttypid
			FROM pg_attribute a
			JOIN pg_class c ON c.oid = a.attrelid
			JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attnum > 0 AND NOT a.attisdropped
			UNION ALL
			SELECT b.attname, t.typbasetype
			FROM base b
			JOIN pg_type t ON t.oid = b.oid AND t.typtype = 'd'
		)
		SELECT b.attname::text, t.typname::text
		FROM base b
		JOIN pg_type t ON t.oid = b.oid AND t.typtype <> 'd'`
	types := map[string]string{}
	err := e.eachColumn(ctx, name, query, schema, table, func(column, kind string) { types[column] = kind })
	return types, err
}

// keyColumns returns the columns of a table's primary key in key order.
func (e *Engine) keyColumns(ctx context.Context, name, schema, table string) ([]string, error) {
	const query = `
		SELECT a.attname::text, ''
		FROM pg_index i
		JOIN pg_class c ON c.oid = i.indrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace
		CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		WHERE n.nspname = $1::text AND c.relname = $2::text AND i.indisprimary
		ORDER BY k.place`
	var keys []string
	err := e.eachColumn(ctx, name, query, schema, table, func(column, _ string) { keys = append(keys, column) })
	return keys, err
}

func (e *Engine) eachColumn(ctx context.Context, name, query, schema, table string, f func(column, detail string)) error {
	d, err := e.captured(name)
	if err != nil {
		return err
	}
	rows, err := d.pool.Query(ctx, query, schema, table)
	if err != nil {
		return fmt.Errorf("look up the columns of %s.%s: %w", schema, table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var column, detail string
		if err := rows.Scan(&column, &detail); err != nil {
			return fmt.Errorf("look up the columns of %s.%s: %w", schema, table, err)
		}
		f(column, detail)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look up the columns of %s.%s: %w", schema, table, err)
	}
	return nil
}
