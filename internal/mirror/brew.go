package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep/source"
)

// manner is how a transaction goes about rows that are refused.
type manner int

const (
	brisk    manner = iota // they fail it
	careful                // they are found and parked
	retrying               // so too; all of them were parked before
)

// brew is one transaction of Apply.
type brew struct {
	m      *Mirror
	conn   *pgx.Conn
	change Change
	manner manner

	groups    []*group
	result    Result
	saved     map[string]string // states
	confirmed []confirmation
	entries   []Entry
}

type confirmation struct {
	key uint64
	at  time.Time
}

// group is the part of a brew in one table.
type group struct {
	t        *table
	readings []*reading
	missing  []Missing
	ids      []string
	stands   map[string]*stand
	rows     int64 // in the table; asked for only where a sweep needs it
	wanted   map[string]source.Type
}

// stand is one id: as the database has it, and as the page makes it.
type stand struct {
	before, now standing
	winner      *reading
}

// run makes and commits the transaction.
func (b *brew) run(ctx context.Context, groups map[string][]*reading) error {
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		b.gather(name, groups[name])
	}
	if err := b.open(ctx); err != nil {
		return err
	}
	for _, g := range b.groups {
		b.decide(g)
		b.sweep(g)
		if err := b.write(ctx, g); err != nil {
			return err
		}
	}
	return b.commit(ctx)
}

func (b *brew) gather(collection string, readings []*reading) {
	t, _ := b.m.table(collection)
	g := &group{t: t, readings: readings, stands: map[string]*stand{}, wanted: map[string]source.Type{}}
	add := func(id string) {
		if g.stands[id] == nil && t.fits(id) == "" {
			g.stands[id] = &stand{}
			g.ids = append(g.ids, id)
		}
	}
	for _, r := range readings {
		if r.bad == "" {
			add(r.id)
		}
	}
	for _, s := range b.change.Missing {
		if s.Collection == collection {
			g.missing = append(g.missing, s)
			for _, id := range s.IDs {
				add(postgresText(id))
			}
		}
	}
	b.groups = append(b.groups, g)
}

const tombQuery = `
	SELECT id, version, gone_at, seen_at, reason
	FROM lockstep.tombstone
	WHERE sync_id = $1::uuid AND collection = $2::text AND id = ANY ($3::text[])`

// open begins the transaction, checks the fence, and reads what is there. Nothing of
// that writes: a transaction that goes no further leaves no trace in the WAL.
func (b *brew) open(ctx context.Context) (err error) {
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	batch.Queue(fenceQuery, b.m.id)
	for _, g := range b.groups {
		batch.Queue(g.t.sql.look, g.ids)
		if b.m.tombs[g.t.collection.Name] {
			batch.Queue(tombQuery, b.m.id, g.t.collection.Name, g.ids)
		}
		if len(g.missing) > 0 {
			batch.Queue(g.t.sql.count)
		}
	}
	results := b.conn.SendBatch(ctx, batch)
	defer func() { err = cmp.Or(err, results.Close()) }()
	if _, err := results.Exec(); err != nil {
		return err
	}
	var fence int64
	err = results.QueryRow().Scan(&fence)
	if err := b.m.fenced(fence, err); err != nil {
		return err
	}
	for _, g := range b.groups {
		if err := g.scanRows(results); err != nil {
			return err
		}
		if b.m.tombs[g.t.collection.Name] {
			if err := g.scanTombs(results); err != nil {
				return err
			}
		}
		if len(g.missing) == 0 {
			continue
		}
		if err := results.QueryRow().Scan(&g.rows); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) scanRows(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	var id string
	var version, synced *time.Time
	var rank *int16
	var print []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &version, &rank, &synced, &print}, func() error {
		now := &g.stands[id].now
		now.row = true
		now.look = look{version: value(version).UTC(), at: value(synced).UTC(), rank: source.Rank(value(rank))}
		copy(now.print[:], print)
		return nil
	})
	return err
}

func (g *group) scanTombs(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	var id, reason string
	var version, gone, seen *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &version, &gone, &seen, &reason}, func() error {
		now := &g.stands[id].now
		now.dead = true
		now.tomb = tomb{version: value(version).UTC(), gone: value(gone).UTC(), seen: value(seen).UTC(), reason: reason}
		return nil
	})
	return err
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// decide takes the page's records in, in their order.
func (b *brew) decide(g *group) {
	for _, s := range g.stands {
		// A tombstone beside a row is one that a person has overruled.
		s.now.dead = s.now.dead && !s.now.row
		s.before = s.now
	}
	for _, r := range g.readings {
		s, ok := g.stands[r.id]
		if !ok || r.bad != "" {
			continue // parked by write
		}
		key := recentKey(g.t.collection.Name, r.id)
		if s.now.row {
			s.now.at = latest(s.now.at, b.m.recent.last(key))
		}
		if s.now.doubtful(r.look) {
			b.result.Doubtful = append(b.result.Doubtful, source.Record{Collection: g.t.collection.Name, ID: r.id})
		}
		switch s.now.take(r.look) {
		case unchanged:
			b.result.Unchanged++
			if !r.deleted && r.truthful() && r.at.After(s.now.at) {
				b.confirmed = append(b.confirmed, confirmation{key, r.at})
				s.now.at = r.at
			}
		case stale:
			b.result.Stale++
		default:
			if s.winner != nil {
				b.result.Stale++ // an earlier one of this page
			}
			s.winner = r
		}
	}
}

// The safety valve: beyond both of these a sweep is more likely wrong than right.
const (
	valveRows    = 50
	valvePercent = 5
)

// sweep deletes what a complete scan has not found.
func (b *brew) sweep(g *group) {
	for _, s := range g.missing {
		// What was read in the moment when the scan began stays.
		l := look{at: micros(s.Started).Add(-time.Microsecond), deleted: true, reason: "sweep"}
		gone := map[string]standing{}
		for _, id := range s.IDs {
			id = postgresText(id)
			stand, ok := g.stands[id]
			if !ok || !stand.now.row {
				continue
			}
			if now := stand.now; now.take(l) == deleted {
				gone[id] = now
			}
		}
		if n := int64(len(gone)); n > max(valveRows, g.rows*valvePercent/100) {
			b.result.Held += len(gone)
			b.entries = append(b.entries, Entry{Kind: "sweep", Collection: s.Collection, Outcome: "held",
				Message: fmt.Sprintf("%d of %d rows were not listed: too many to believe it; nothing was deleted", n, g.rows)})
			continue
		}
		for id, now := range gone {
			stand := g.stands[id]
			stand.now, stand.winner = now, &reading{id: id, look: l, origin: source.Record{Collection: s.Collection, ID: id, Deleted: true, Reason: "sweep"}}
		}
	}
}

// commit writes the cursors and the log, and ends the transaction.
func (b *brew) commit(ctx context.Context) (err error) {
	batch := &pgx.Batch{}
	if b.saved, err = b.m.saveStates(batch, b.change.States); err != nil {
		return err
	}
	b.m.queueEntries(batch, append(b.entries, b.change.Entries...))
	if b.m.writer.marked {
		batch.Queue(stampQuery)
	}
	batch.Queue("COMMIT")
	last := batch.Len() - 1
	results := b.conn.SendBatch(ctx, batch)
	defer func() { err = cmp.Or(err, results.Close()) }()
	for i := range batch.Len() {
		tag, err := results.Exec()
		if err != nil {
			return err
		}
		if i == last && tag.String() != "COMMIT" {
			return errors.New("the transaction was rolled back: " + tag.String())
		}
	}
	return nil
}

// abort ends the transaction, if the session still is in it.
func (b *brew) abort(ctx context.Context) {
	if b.conn.IsClosed() || b.conn.PgConn().TxStatus() == 'I' {
		return
	}
	if _, err := b.conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
		_ = b.conn.Close(context.WithoutCancel(ctx)) // the transaction ends with the session
	}
}
