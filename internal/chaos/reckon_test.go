package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/stream"
)

// reckon compares what came out with what went in, and tells.
func (c *campaign) reckon(fired time.Duration) {
	c.t.Helper()
	if err := c.node.stop(); err != nil {
		c.fault("the node did not end as it should: %v; its last words: %s", err, c.node.lastWords())
	}
	if !c.broken() {
		for i, a := range c.audits {
			committed, _ := c.ledger.selected(c.keeps(i))
			a.compare(committed)
		}
		c.check(c.replay())
	}
	faults := slices.Clone(c.faults)
	for _, a := range c.audits {
		faults = append(faults, a.problems()...)
	}
	for _, f := range faults {
		c.t.Error(f)
	}
	c.t.Log(c.summary(fired))
	if len(faults) > 0 {
		c.t.Logf("the same accidents again: LOCKSTEP_CHAOS_SEED=%d", c.seed)
	}
}

func (c *campaign) summary(fired time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d kills of the node among %d accidents in %s\n", c.seed, c.kills, c.progress.Load(), fired.Round(time.Second))
	for _, k := range slices.Sorted(maps.Keys(c.happened)) {
		fmt.Fprintf(&b, "  %4d  %s\n", c.happened[k], k)
	}
	fmt.Fprintf(&b, "%d changes in %d transactions were committed; %d commits were not answered, %d of them had happened\n", c.ledger.changes, c.ledger.commits, c.ledger.doubts, c.ledger.landed)
	for _, a := range c.audits {
		fmt.Fprintf(&b, "consumer %s: %d changes; again after a restart %d (at most %d at once), after a lease %d, after a nack %d; %d acks answered, %d refused as stale; longest wait for a new change %s\n",
			a.consumer, a.steps, a.byRestart, a.most, a.byLease, a.byNack, a.acked, a.stale, a.silence.Round(time.Millisecond))
	}
	fmt.Fprintf(&b, "tail: %d changes, each once; largest resident memory of a node: %d MB", c.tail.Load(), c.node.most>>20)
	return b.String()
}

// state is the rows of the tables: version and write by key.
type state map[string][2]uint64

// replay reads the log of the stopped node from its first change on and compares what
// it leads to with the tables.
func (c *campaign) replay() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	server, err := stream.Open(ctx, stream.Config{Dir: filepath.Join(c.node.data, "stream")})
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer func() { _ = server.Close() }()
	log, err := server.Log(ctx, "app")
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	if last := log.Last().Seq; last != uint64(c.ledger.changes) {
		return fmt.Errorf("the log holds %d changes, %d were committed", last, c.ledger.changes)
	}
	replayed := state{}
	reader := log.Reader(1)
	defer reader.Close()
	var at position
	for at.seq < log.Last().Seq {
		b, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the log behind change %d: %w", at.seq, err)
		}
		for i := range b.Len() {
			if err := at.follow(b.Record(i)); err != nil {
				return err
			}
			if err := replayed.apply(b.Record(i)); err != nil {
				return err
			}
		}
	}
	return c.sameAsTables(ctx, replayed)
}

// apply does to the rows what the change did.
func (s state) apply(r lockstep.Record) error {
	var pks []string
	if err := json.Unmarshal(r.PKs(), &pks); err != nil || len(pks) != 1 {
		return fmt.Errorf("the log: change %d (%s) has the key %s", r.Seq(), r.Action(), r.PKs())
	}
	key := r.Table().Name + "/" + pks[0]
	if r.Action() == lockstep.Delete {
		if _, there := s[key]; !there {
			return fmt.Errorf("the log: change %d deletes %s, which is not there", r.Seq(), key)
		}
		delete(s, key)
		return nil
	}
	_, version, write, err := row(key, r.Row())
	if err != nil {
		return fmt.Errorf("the log: change %d: %w", r.Seq(), err)
	}
	s[key] = [2]uint64{uint64(version), write}
	return nil
}

// position is a place in the log; it grows from record to record.
type position struct {
	seq    uint64
	commit lockstep.LSN
	idx    uint64
}

func (p *position) follow(r lockstep.Record) error {
	next := position{r.Seq(), r.Tx().CommitLSN, uint64(r.CommitIdx())}
	if next.seq != p.seq+1 {
		return fmt.Errorf("the log: change %d follows change %d", next.seq, p.seq)
	}
	if next.commit < p.commit || next.commit == p.commit && next.idx <= p.idx {
		return fmt.Errorf("the log: change %d at %v/%d follows %v/%d", next.seq, next.commit, next.idx, p.commit, p.idx)
	}
	*p = next
	return nil
}

func (c *campaign) sameAsTables(ctx context.Context, replayed state) error {
	conn, err := pgx.Connect(ctx, c.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, table := range tables() {
		rows, err := conn.Query(ctx, "SELECT id, version, write, body FROM ledger."+table)
		if err != nil {
			return err
		}
		var id int
		var version, write uint64
		var body string
		_, err = pgx.ForEachRow(rows, []any{&id, &version, &write, &body}, func() error {
			key := rowKey(table, id)
			if got := replayed[key]; got != [2]uint64{version, write} {
				return fmt.Errorf("%s: the log leads to version %d (write %d), the table has version %d (write %d)", key, got[0], got[1], version, write)
			}
			if body != bodyOf(write) {
				return fmt.Errorf("%s: the table itself holds another body than was written", key)
			}
			delete(replayed, key)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(replayed) > 0 {
		return fmt.Errorf("the log leads to %d rows that are not in the tables", len(replayed))
	}
	return nil
}

func execute(t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}
