package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// view is what the workers have made of the changes they processed: the tables as
// they know them. Applying a change out of order, twice or not at all shows.
type view struct {
	mu       sync.Mutex
	rows     map[string]map[string]json.RawMessage // table → key → row
	lastSeq  map[string]uint64                     // table and key → seq of the last change
	history  map[uint64]struct{}                   // seqs of the history table's inserts: it has no key
	faults   []string
	repeated int
}

func newView() *view {
	return &view{rows: map[string]map[string]json.RawMessage{}, lastSeq: map[string]uint64{}, history: map[uint64]struct{}{}}
}

// apply processes one change as a worker would: idempotently by seq.
func (v *view) apply(table, action string, pks []string, seq uint64, row json.RawMessage) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if table == "pgbench_history" && action == "insert" {
		v.history[seq] = struct{}{}
		return
	}
	key := table + "\x00" + strings.Join(pks, "\x00")
	switch last := v.lastSeq[key]; {
	case last == seq:
		v.repeated++
		return
	case last > seq:
		v.fault("%s %v: change %d came after %d", table, pks, seq, last)
		return
	}
	v.lastSeq[key] = seq
	if v.rows[table] == nil {
		v.rows[table] = map[string]json.RawMessage{}
	}
	switch action {
	case "truncate":
		clear(v.rows[table])
	case "delete":
		delete(v.rows[table], strings.Join(pks, "\x00"))
	default:
		v.rows[table][strings.Join(pks, "\x00")] = append(json.RawMessage(nil), row...)
	}
}

func (v *view) fault(format string, args ...any) {
	if len(v.faults) < 20 {
		v.faults = append(v.faults, fmt.Sprintf(format, args...))
	}
}

// compare checks the view against the tables themselves and returns how many rows
// were compared; differences are added to the faults.
func (v *view) compare(ctx context.Context, db *pgxpool.Pool) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	compared := 0
	for table, columns := range map[string][2]string{
		"pgbench_accounts": {"aid", "abalance"}, "pgbench_tellers": {"tid", "tbalance"}, "pgbench_branches": {"bid", "bbalance"},
	} {
		n, err := v.compareTable(ctx, db, table, columns[0], columns[1])
		if err != nil {
			return compared, err
		}
		compared += n
	}
	var history int
	if err := db.QueryRow(ctx, `SELECT count(*) FROM pgbench_history`).Scan(&history); err != nil {
		return compared, fmt.Errorf("count pgbench_history: %w", err)
	}
	if history != len(v.history) {
		v.fault("pgbench_history: the workers saw %d rows, the table has %d", len(v.history), history)
	}
	return compared + history, nil
}

func (v *view) compareTable(ctx context.Context, db *pgxpool.Pool, table, key, balance string) (int, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`SELECT %s::text, %s::text FROM %s`,
		pgx.Identifier{key}.Sanitize(), pgx.Identifier{balance}.Sanitize(), pgx.Identifier{table}.Sanitize()))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", table, err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var k, want string
		if err := rows.Scan(&k, &want); err != nil {
			return n, fmt.Errorf("read %s: %w", table, err)
		}
		n++
		var row map[string]json.RawMessage
		if err := json.Unmarshal(v.rows[table][k], &row); err != nil {
			v.fault("%s %s: the workers never saw it", table, k)
			continue
		}
		if got := string(row[balance]); got != want {
			v.fault("%s %s: the workers have %s %s, the table %s", table, k, balance, got, want)
		}
	}
	if n != len(v.rows[table]) {
		v.fault("%s: the workers have %d rows, the table %d", table, len(v.rows[table]), n)
	}
	return n, rows.Err()
}
