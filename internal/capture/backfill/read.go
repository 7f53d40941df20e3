package backfill

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/capture/wal"
	"lockstep/internal/pgdb"
)

// slice is which rows of a table to read.
type slice struct {
	oid          uint32
	schema, name string   // as it was called last
	keys         []string // the columns of its key
	publication  string
	where        string

	after, until [][]byte   // keys: rows behind the one, up to the other; nil: no bound
	these        [][][]byte // keys: only these rows
	limit        int        // rows, when these are not given
	keysOnly     bool       // the columns of the key, in its order
	spare        *rows      // memory to be used again; nil: there is none
}

// rows is what was read, in the order of the key.
type rows struct {
	shape    *shape
	snapshot wal.Snapshot
	values   [][]byte // row after row
	count    int
	bytes    int
	last     [][]byte // the key up to which everything was read; nil: nothing new was
	end      bool     // there are no more behind it
	cut      bool     // it was too much: what follows was not read
	took     time.Duration
	memory   [][]byte // chunks, the last one is being filled
}

// chunk is the least memory that is taken for rows at a time.
const chunk = 256 << 10

// again returns memory without rows.
func (r *rows) again() *rows {
	if r == nil {
		return &rows{}
	}
	clear(r.values)
	kept := &rows{values: r.values[:0]}
	if n := len(r.memory); n > 0 && cap(r.memory[0]) <= hardBytes {
		kept.memory = append(r.memory[:0], r.memory[n-1][:0])
		clear(r.memory[1:n])
	}
	return kept
}

// room returns memory for a row of that size.
func (r *rows) room(size int) []byte {
	n := len(r.memory)
	if n == 0 || cap(r.memory[n-1])-len(r.memory[n-1]) < size {
		next := chunk
		if n > 0 {
			next = min(2*cap(r.memory[n-1]), targetBytes)
		}
		r.memory = append(r.memory, make([]byte, 0, max(next, size)))
		n++
	}
	last := &r.memory[n-1]
	at := len(*last)
	*last = (*last)[:at+size]
	return (*last)[at : at : at+size]
}

func (r *rows) row(i int) [][]byte {
	n := len(r.values) / r.count
	return r.values[i*n : (i+1)*n]
}

// The budgets of one page.
const (
	statementTimeout = 15 * time.Second
	lockTimeout      = 2 * time.Second
	readTimeout      = 45 * time.Second // of everything, when the server says nothing any more
	hardBytes        = 8 << 20
)

// pinned are the settings under which the walsender of capture writes values, and
// what makes a page harmless. The search path is narrowed for the catalog only.
func pinned() string {
	return strings.Join([]string{
		"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		"SET LOCAL client_encoding = 'UTF8'",
		"SET LOCAL DateStyle = 'ISO'",
		"SET LOCAL IntervalStyle = 'postgres'",
		"SET LOCAL TimeZone = 'UTC'",
		"SET LOCAL extra_float_digits = 3",
		"SET LOCAL bytea_output = 'hex'",
		"SET LOCAL standard_conforming_strings = on",
		// An error is better than the rows that a policy happens to show.
		"SET LOCAL row_security = off",
		fmt.Sprintf("SET LOCAL statement_timeout = %d", statementTimeout.Milliseconds()),
		fmt.Sprintf("SET LOCAL lock_timeout = %d", lockTimeout.Milliseconds()),
		fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", readTimeout.Milliseconds()),
		// The index gives the first rows at once; anything else reads the whole table.
		"SET LOCAL enable_sort = off",
		"SET LOCAL max_parallel_workers_per_gather = 0",
		"SET LOCAL jit = off",
		"SET LOCAL search_path = pg_catalog",
	}, "; ")
}

// read reads one page in a transaction of its own.
func (s *slice) read(ctx context.Context, pool *pgxpool.Pool) (*rows, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release() // a connection that is closed, or in a transaction, is not used again
	pg := conn.Conn().PgConn()
	found, err := s.transaction(ctx, pg)
	if err != nil || found.cut {
		// Rows may still be on their way: the end of the connection ends them.
		closing, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		_ = pg.Close(closing) // what was read is complete
	}
	return found, err
}

func (s *slice) transaction(ctx context.Context, pg *pgconn.PgConn) (*rows, error) {
	found := s.spare.again()
	if err := s.begin(ctx, pg, found); err != nil {
		return nil, err
	}
	shape, err := readShape(ctx, pg, s.oid, s.keys, s.publication)
	if err != nil {
		return nil, err
	}
	if shape.schema != s.schema || shape.name != s.name {
		return nil, errMoved // the lock is on another table of that name
	}
	found.shape = shape
	if s.where != "" {
		// Whoever wrote the condition meant the names that the role knows.
		if err := exec(ctx, pg, "SET LOCAL search_path TO DEFAULT"); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	if err := s.rows(ctx, pg, found); err != nil {
		return nil, err
	}
	found.took = time.Since(began)
	if found.cut {
		return found, nil
	}
	return found, exec(ctx, pg, "COMMIT")
}

// begin takes a lock that only DDL would notice, and then the snapshot: the other
// way round, a table that is rewritten in between would look empty.
func (s *slice) begin(ctx context.Context, pg *pgconn.PgConn, found *rows) error {
	text := pinned() + "; LOCK TABLE " + pgdb.QuoteIdent(s.schema, s.name) + " IN ACCESS SHARE MODE; SELECT pg_catalog.pg_current_snapshot()"
	results, err := pg.Exec(ctx, text).ReadAll()
	if sqlState(err) == stateNoTable || sqlState(err) == stateNoSchema || sqlState(err) == stateWrongObject {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	if err != nil {
		return err
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 || len(last.Rows[0]) != 1 {
		return errors.New("the server did not say which transactions run")
	}
	found.snapshot, err = wal.ParseSnapshot(string(last.Rows[0][0]))
	return err
}

func exec(ctx context.Context, pg *pgconn.PgConn, text string) error {
	_, err := pg.Exec(ctx, text).ReadAll()
	return err
}

// rows reads the rows themselves.
func (s *slice) rows(ctx context.Context, pg *pgconn.PgConn, found *rows) error {
	q := newQuery(s, found.shape)
	until, bounded := s.until, false
	if s.where != "" && s.these == nil {
		// How far a page goes must not depend on how few rows the condition takes.
		edge, err := s.edge(ctx, pg, q)
		if err != nil {
			return err
		}
		if edge != nil {
			until, bounded = edge, true
		}
	}
	text := q.selectRows(until)
	if s.these == nil && s.where == "" {
		text += fmt.Sprintf(" LIMIT %d", s.limit)
	}
	if err := found.collect(pg.ExecParams(ctx, text, q.values, q.types, nil, nil)); err != nil {
		return err
	}
	if found.count > 0 && !s.keysOnly {
		found.last = cloneKey(found.shape.keyOfRow(found.row(found.count - 1)))
	}
	switch {
	case found.cut || s.these != nil:
	case bounded:
		found.last = until
	default:
		found.end = s.where != "" || found.count < s.limit
	}
	return nil
}

// edge returns the key of the last row of the page, whether the condition takes it
// or not; nil when the table ends before.
func (s *slice) edge(ctx context.Context, pg *pgconn.PgConn, q *query) ([][]byte, error) {
	q = q.fresh()
	text := q.selectEdge(s.until) + fmt.Sprintf(" OFFSET %d LIMIT 1", s.limit-1)
	found := pg.ExecParams(ctx, text, q.values, q.types, nil, nil).Read()
	if found.Err != nil || len(found.Rows) == 0 {
		return nil, found.Err
	}
	return found.Rows[0], nil
}

// collect takes rows up to the hard limit of bytes, and at least one.
func (r *rows) collect(result *pgconn.ResultReader) error {
	for result.NextRow() {
		row := result.Values()
		size := 0
		for _, v := range row {
			size += len(v)
		}
		if r.count > 0 && r.bytes+size > hardBytes {
			r.cut = true
			return nil
		}
		memory := r.room(size)
		for _, v := range row {
			if v == nil {
				r.values = append(r.values, nil)
				continue
			}
			at := len(memory)
			memory = append(memory, v...)
			r.values = append(r.values, memory[at:len(memory):len(memory)])
		}
		r.bytes += size
		r.count++
	}
	_, err := result.Close()
	return err
}
