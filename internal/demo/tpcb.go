package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// The tables are those of pgbench at scale 1, with their keys from the start, so
// that the first row is captured like the last.
const (
	tpcbTables = `
		CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88)) WITH (fillfactor=100);
		CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)) WITH (fillfactor=100);
		CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor=100);
		CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));`
	tpcbRows = `
		INSERT INTO pgbench_branches SELECT b, 0, '' FROM generate_series(1, $1::int) b;
		INSERT INTO pgbench_tellers SELECT t, (t - 1) / 10 + 1, 0, '' FROM generate_series(1, 10 * $1::int) t;
		INSERT INTO pgbench_accounts SELECT a, (a - 1) / $2::int + 1, 0, '' FROM generate_series(1, $1::int * $2::int) a;`

	branches          = 4
	accountsPerBranch = 5_000
	writers           = 4
)

// createTables makes the empty TPC-B tables.
func createTables(ctx context.Context, db *pgxpool.Pool) error {
	_, err := db.Exec(ctx, tpcbTables)
	return wrap("create the TPC-B tables", err)
}

// fillTables inserts the first rows.
func fillTables(ctx context.Context, db *pgxpool.Pool) error {
	sql := strings.NewReplacer("$1::int", strconv.Itoa(branches), "$2::int", strconv.Itoa(accountsPerBranch)).Replace(tpcbRows)
	_, err := db.Exec(ctx, sql)
	return wrap("fill the TPC-B tables", err)
}

// load runs Postgres' own pgbench against the database until ctx ends, or this
// package's copy of its transaction where the program is missing.
func load(ctx context.Context, db *pgxpool.Pool, binDir string) error {
	path, err := findPgbench(binDir)
	if err != nil {
		return ownLoad(ctx, db)
	}
	c := db.Config().ConnConfig
	cmd := exec.CommandContext(ctx, path, "--no-vacuum", "--client="+strconv.Itoa(writers), "--jobs=1", "--time=864000",
		"--scale="+strconv.Itoa(branches), "--define=naccounts="+strconv.Itoa(branches*accountsPerBranch),
		"--file=-", "--host="+c.Host, "--port="+strconv.Itoa(int(c.Port)), "--username="+c.User, c.Database)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+c.Password)
	cmd.Stdin = strings.NewReader(tpcbScript)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("pgbench ended early: %w: %s", err, lastLine(string(out)))
}

// tpcbScript is pgbench's built-in "TPC-B (sort of)" with the number of accounts
// as a variable, because the demo keeps the table small.
const tpcbScript = `\set aid random(1, :naccounts)
\set bid random(1, :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
`

func findPgbench(binDir string) (string, error) {
	if p := filepath.Join(binDir, "pgbench"); binDir != "" {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return exec.LookPath("pgbench")
}

func ownLoad(ctx context.Context, db *pgxpool.Pool) error {
	var group errgroup.Group
	for range writers {
		group.Go(func() error {
			for ctx.Err() == nil {
				if err := transfer(ctx, db); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func transfer(ctx context.Context, db *pgxpool.Pool) error {
	aid, tid, bid, delta := 1+rand.IntN(branches*accountsPerBranch), 1+rand.IntN(10*branches), 1+rand.IntN(branches), rand.IntN(10001)-5000
	return wrap("TPC-B transaction", pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var batch pgx.Batch
		batch.Queue(`UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2`, delta, aid)
		batch.Queue(`UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2`, delta, tid)
		batch.Queue(`UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2`, delta, bid)
		batch.Queue(`INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)`, tid, bid, aid, delta)
		return tx.SendBatch(ctx, &batch).Close()
	}))
}

func wrap(doing string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
