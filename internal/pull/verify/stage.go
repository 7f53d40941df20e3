package verify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/mirror"
)

// stage is where a collection's check keeps what does not fit into memory: temporary
// tables of a connection of its own, which no WAL and no consumer hears of.
type stage struct {
	conn     *pgx.Conn
	relation string    // quoted
	waiting  []listing // not yet in the table
}

// listing is one record of a list.
type listing struct {
	id    string
	print mirror.Print
	at    time.Time
}

const (
	// stagedAtOnce is how many listings are kept in memory.
	stagedAtOnce = 2000
	// closing bounds how long the end of a session is waited for.
	closing = 5 * time.Second
)

const tables = `
	CREATE TEMP TABLE lockstep_listed (
		id    text COLLATE "C" NOT NULL,
		print bytea NOT NULL,
		at    timestamptz NOT NULL
	);
	CREATE TEMP TABLE lockstep_suspect (
		id     text COLLATE "C" PRIMARY KEY,
		kind   text NOT NULL,
		way    smallint NOT NULL DEFAULT 0,
		print  bytea,
		row    bytea,
		round  integer NOT NULL DEFAULT 0
	)`

func openStage(ctx context.Context, c Config, collection string) (*stage, error) {
	schema, table, err := c.Mirror.Relation(collection)
	if err != nil {
		return nil, err
	}
	config := c.Pool.Config().ConnConfig.Copy()
	config.RuntimeParams["application_name"] = "lockstep verify"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the mirror's database: %w", err)
	}
	s := &stage{conn: conn, relation: pgx.Identifier{schema, table}.Sanitize()}
	if _, err := conn.Exec(ctx, tables); err != nil {
		s.close(ctx)
		return nil, fmt.Errorf("make temporary tables in the mirror's database (its role needs TEMPORARY on the database): %w", err)
	}
	return s, nil
}

func (s *stage) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing) // the session must end although the caller's context has
	defer cancel()
	_ = s.conn.Close(ctx) // with it its tables go
}

// clear forgets what was listed.
func (s *stage) clear(ctx context.Context) error {
	s.waiting = s.waiting[:0]
	_, err := s.conn.Exec(ctx, "TRUNCATE lockstep_listed")
	return err
}

func (s *stage) add(ctx context.Context, l listing) error {
	l.id = text(l.id)
	if s.waiting = append(s.waiting, l); len(s.waiting) < stagedAtOnce {
		return nil
	}
	return s.flush(ctx)
}

// text is an id as the mirror keeps it.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

func (s *stage) flush(ctx context.Context) error {
	rows := pgx.CopyFromSlice(len(s.waiting), func(i int) ([]any, error) {
		l := &s.waiting[i]
		return []any{l.id, l.print[:], l.at}, nil
	})
	_, err := s.conn.CopyFrom(ctx, pgx.Identifier{"lockstep_listed"}, []string{"id", "print", "at"}, rows)
	s.waiting = s.waiting[:0]
	return err
}

// compare suspects the records in which the list and the table differ, and returns how
// many were compared. What the mirror has read since the list was is newer, and no
// suspect; a time in the future is a mistake.
func (s *stage) compare(ctx context.Context, started time.Time) (compared uint64, err error) {
	sql := fmt.Sprintf(`
		INSERT INTO lockstep_suspect (id, kind, print)
		SELECT coalesce(l.id, t.id::text),
		       CASE WHEN t.id IS NULL THEN 'missing' WHEN l.id IS NULL THEN 'extra' ELSE 'stale' END,
		       coalesce(l.prints[array_upper(l.prints, 1)], '')
		FROM (SELECT id, array_agg(print ORDER BY at) AS prints, min(at) AS at FROM lockstep_listed GROUP BY id) l
		FULL JOIN %s t ON t.id::text COLLATE "C" = l.id
		WHERE t.id IS NULL
		   OR (l.id IS NULL OR t._fingerprint IS NULL OR t._fingerprint <> ALL (l.prints))
		      AND (t._synced_at IS NULL OR t._synced_at < coalesce(l.at, $1::timestamptz) OR t._synced_at > $2::timestamptz)`, s.relation)
	if _, err := s.conn.Exec(ctx, "ANALYZE lockstep_listed"); err != nil {
		return 0, err
	}
	if _, err := s.conn.Exec(ctx, sql, started, started.Add(mistaken)); err != nil {
		return 0, err
	}
	const count = `
		SELECT (SELECT count(*) FROM (SELECT DISTINCT id FROM lockstep_listed) l)
		     + (SELECT count(*) FROM lockstep_suspect WHERE kind = 'extra')`
	err = s.conn.QueryRow(ctx, count).Scan(&compared)
	return compared, err
}

// suspect adds rows that may have been changed by hand.
func (s *stage) suspect(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	const add = `
		INSERT INTO lockstep_suspect (id, kind)
		SELECT id, 'stale' FROM unnest($1::text[]) id
		ON CONFLICT (id) DO NOTHING`
	_, err := s.conn.Exec(ctx, add, ids)
	return err
}

// way is how a suspect is looked at again.
type way int

const (
	byID   way = iota // one by one
	byList            // with the whole list
	unsaid            // with the list, since the API says nothing about the one: it is neither there nor gone
)

// counts returns how many suspects there are, by kind.
func (s *stage) counts(ctx context.Context) (extras, others int, err error) {
	const query = `
		SELECT count(*) FILTER (WHERE kind = 'extra'), count(*) FILTER (WHERE kind <> 'extra')
		FROM lockstep_suspect`
	err = s.conn.QueryRow(ctx, query).Scan(&extras, &others)
	return extras, others, err
}

// open returns how many suspects of these ways a round has not come to yet.
func (s *stage) open(ctx context.Context, round int, ways ...way) (n int, err error) {
	const query = `
		SELECT count(*)
		FROM lockstep_suspect
		WHERE round < $1::int AND way = ANY ($2::smallint[])`
	err = s.conn.QueryRow(ctx, query, round, numbers(ways)).Scan(&n)
	return n, err
}

func numbers(ways []way) []int16 {
	n := make([]int16, len(ways))
	for i, w := range ways {
		n[i] = int16(w)
	}
	return n
}

// relist says that all suspects of a kind are looked at with the list.
func (s *stage) relist(ctx context.Context, kinds ...kind) error {
	names := make([]string, len(kinds))
	for i, one := range kinds {
		names[i] = string(one)
	}
	_, err := s.conn.Exec(ctx, "UPDATE lockstep_suspect SET way = 1 WHERE kind = ANY ($1::text[])", names)
	return err
}

// send changes how suspects are looked at.
func (s *stage) send(ctx context.Context, ids []string, to way) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := s.conn.Exec(ctx, "UPDATE lockstep_suspect SET way = $2::smallint WHERE id = ANY ($1::text[])", ids, int16(to))
	return err
}

// rows returns how many rows the mirror has.
func (s *stage) rows(ctx context.Context) (n int, err error) {
	err = s.conn.QueryRow(ctx, "SELECT count(*) FROM "+s.relation).Scan(&n)
	return n, err
}

// suspicion is what is known of a suspect from the last time that it was looked at.
type suspicion struct {
	id    string
	way   way
	print []byte // the API's record; empty: gone; nil: not known
	row   []byte // the mirror's row, as the first look showed it; nil: not looked at
	round int
}

const suspectColumns = "id, way, print, row, round"

// some returns suspects of these ways that a round has not come to yet.
func (s *stage) some(ctx context.Context, round int, after string, limit int, ways ...way) ([]suspicion, error) {
	const query = `
		SELECT ` + suspectColumns + `
		FROM lockstep_suspect
		WHERE id > $1::text AND round < $2::int AND way = ANY ($3::smallint[])
		ORDER BY id
		LIMIT $4::int`
	rows, err := s.conn.Query(ctx, query, after, round, numbers(ways), limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanSuspicion)
}

// among returns those of the ids that are looked at with the list, and have not been in
// this round.
func (s *stage) among(ctx context.Context, round int, ids []string) ([]suspicion, error) {
	const query = `
		SELECT ` + suspectColumns + `
		FROM lockstep_suspect
		WHERE id = ANY ($1::text[]) AND round < $2::int AND way > 0`
	rows, err := s.conn.Query(ctx, query, ids, round)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanSuspicion)
}

func scanSuspicion(row pgx.CollectableRow) (s suspicion, err error) {
	err = row.Scan(&s.id, &s.way, &s.print, &s.row, &s.round)
	return s, err
}

// keep notes what a look has shown of suspects that stay ones.
func (s *stage) keep(ctx context.Context, list []suspicion) error {
	if len(list) == 0 {
		return nil
	}
	const update = `
		UPDATE lockstep_suspect AS s
		SET print = d.print, row = d.row, round = d.round
		FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::int[]) AS d(id, print, row, round)
		WHERE s.id = d.id`
	ids, prints, rows, rounds := make([]string, len(list)), make([][]byte, len(list)), make([][]byte, len(list)), make([]int, len(list))
	for i, one := range list {
		ids[i], prints[i], rows[i], rounds[i] = one.id, one.print, one.row, one.round
	}
	_, err := s.conn.Exec(ctx, update, ids, prints, rows, rounds)
	return err
}

// drop forgets suspects: they are in order, or have been found.
func (s *stage) drop(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := s.conn.Exec(ctx, "DELETE FROM lockstep_suspect WHERE id = ANY ($1::text[])", ids)
	return err
}
