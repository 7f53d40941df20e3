package publish

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// comparison finds, at the end of a round, what changed rows without events since the
// last one. Where the catalog leaves it open, it finds a gap that may be none, and
// never the other way round.
type comparison struct {
	*round
	whole     bool                 // as catalog.whole
	next      map[uint32]sight     // the memory after this round
	listed    map[uint32]*relation // what the patterns match and has events, published or not
	details   map[uint32]detail
	gaps      map[uint32]*gap // by oid of the captured table
	postponed bool            // something could not be looked at: it is compared again in the next round
	until     time.Time       // of looking at rows in this round
	// Transactions older than oldest have ended, and those from youngest on had not
	// written anything when this round had taken its tables in.
	oldest, youngest uint64
}

// looking is how long a round may look at rows. What is left is for the next.
const looking = 5 * time.Second

func (rd *round) compare(ctx context.Context, found catalog) {
	if rd.memory == nil || ctx.Err() != nil {
		return
	}
	c := &comparison{
		round: rd, whole: found.whole, until: time.Now().Add(looking),
		next: make(map[uint32]sight, len(rd.memory.seen)), listed: map[uint32]*relation{}, gaps: map[uint32]*gap{},
	}
	err := c.readRunning(ctx)
	if err == nil {
		err = c.readDetails(ctx)
	}
	if err == nil {
		for i := range rd.tables {
			c.table(ctx, &rd.tables[i])
		}
		c.gone()
		err = c.announce(ctx)
	}
	if err != nil || ctx.Err() != nil {
		// Nothing is remembered, so the next round finds the same.
		rd.outstanding = true
		if ctx.Err() == nil {
			rd.said.memory(ctx, rd.config.Logger, fmt.Errorf("compare the tables with the last round: %w", err))
		}
		return
	}
	c.adopt(ctx, found.horizon)
}

// noteOutside marks captured tables that somebody took out of their publication. What
// is written to them until they are back is missing; the mark must not be lost.
func (rd *round) noteOutside(ctx context.Context) {
	if rd.memory == nil || rd.mode == preparing {
		return
	}
	for i := range rd.tables {
		t := &rd.tables[i]
		if !rd.known(t.relation) || t.state.Class == None || rd.published(t.relation) != None {
			continue
		}
		delete(rd.back, t.relation.oid)
		was := rd.memory.seen[t.relation.oid]
		if was.flags&outside != 0 {
			continue
		}
		was.flags |= outside
		rd.memory.seen[t.relation.oid] = was
		rd.memory.unsaved = true
	}
	if rd.memory.unsaved {
		rd.save(ctx)
	}
}

func (c *comparison) captured(t *listed) bool {
	return t.state.Class != None && c.published(t.relation) != None
}

// known reports whether the table was captured at the last survey, and its changes
// since then belong into the log.
func (rd *round) known(r *relation) bool {
	return rd.memory != nil && rd.mode == joining && r.oid == rd.memory.seen[r.oid].root
}

// changed reports whether the catalog has to be asked about a leaf.
func (c *comparison) changed(root, leaf *relation) bool {
	was, seen := c.memory.seen[leaf.oid]
	return c.whole || !seen || leaf.touched || was.root != root.oid || was.file != leaf.file ||
		was.links != leaf.links(root) || was.flags != leaf.flags()
}

func (r *relation) flags() uint8 {
	if r.persistence == 'u' {
		return unlogged
	}
	return 0
}

// links is a hash of how a leaf hangs below a table: it is another after every
// DETACH and ATTACH on the way.
func (r *relation) links(root *relation) uint32 {
	h := fnv.New32a()
	var b [8]byte
	for ; r != root && r != nil; r = r.above {
		binary.BigEndian.PutUint32(b[:4], r.parent)
		binary.BigEndian.PutUint32(b[4:], r.inherited)
		h.Write(b[:]) // never fails
	}
	return h.Sum32()
}

// detail is what the catalog says about a table that may have changed.
type detail struct {
	oid, file uint32
	xmin      uint32 // the transaction that altered or truncated it last
	version   uint32
	// born: it was made as a partition, and never detached since. ATTACH writes a new
	// row for each of a table's columns, CREATE TABLE … PARTITION OF makes them
	// together with those of its system columns.
	born    bool
	types   string
	missing []int16 // columns whose value stands in the catalog for older rows
}

const readDetailsSQL = `
SELECT c.oid, c.relfilenode, c.xmin,
  coalesce(pg_catalog.hashtext(string_agg(a.xmin::text, ',' ORDER BY a.attnum)), 0),
  coalesce(bool_or(a.xmin = s.xmin AND a.cmin = s.cmin AND NOT a.attisdropped), false),
  coalesce(array_agg(CASE
    WHEN a.attisdropped OR a.attgenerated = 'v' OR a.attgenerated = 's' AND NOT $2::boolean THEN 0::oid
    ELSE a.atttypid
  END ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL), '{}'),
  coalesce(array_agg(a.attnum) FILTER (WHERE a.atthasmissing), '{}')
FROM unnest($1::oid[]) AS w(oid)
JOIN pg_catalog.pg_class c ON c.oid = w.oid
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
LEFT JOIN pg_catalog.pg_attribute s ON s.attrelid = c.oid AND s.attnum = -1
GROUP BY c.oid, c.relfilenode, c.xmin`

// detailsAtOnce bounds the memory that one query takes.
const detailsAtOnce = 10_000

// readDetails asks the catalog about every leaf that may have changed, and about all
// that a new one hangs on.
func (c *comparison) readDetails(ctx context.Context) error {
	wanted := map[uint32]bool{}
	for i := range c.tables {
		t := &c.tables[i]
		if t.state.Class != None {
			c.listed[t.relation.oid] = t.relation
		}
		if !c.captured(t) {
			continue
		}
		for _, leaf := range t.relation.leaves() {
			if leaf.kind != 'r' || !c.changed(t.relation, leaf) {
				continue
			}
			for r := leaf; r != nil && r != t.relation; r = r.above {
				wanted[r.oid] = true
			}
			wanted[leaf.oid] = true
		}
	}
	c.details = make(map[uint32]detail, len(wanted))
	for oids := range slices.Chunk(slices.Sorted(maps.Keys(wanted)), detailsAtOnce) {
		rows, err := c.conn.Query(ctx, readDetailsSQL, oids, c.srv.generated)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, scanDetail)
		if err != nil {
			return err
		}
		for _, d := range found {
			c.details[d.oid] = d
		}
	}
	return nil
}

func scanDetail(row pgx.CollectableRow) (d detail, err error) {
	var version int32
	var types []uint32
	err = row.Scan(&d.oid, &d.file, &d.xmin, &version, &d.born, &types, &d.missing)
	d.version = uint32(version)
	d.types = appendTypes(types)
	return d, err
}

// appendTypes writes type oids as a sight has them: 0 for a column that is dropped or
// not published.
func appendTypes(types []uint32) string {
	b := make([]byte, 0, 2*len(types))
	for _, t := range types {
		b = binary.AppendUvarint(b, uint64(t))
	}
	return string(b)
}

func typesOf(list string) (types []uint32) {
	for b := []byte(list); len(b) > 0; {
		t, n := binary.Uvarint(b)
		types, b = append(types, uint32(t)), b[max(n, 1):]
	}
	return types
}

// table compares one captured table, and remembers it.
func (c *comparison) table(ctx context.Context, t *listed) {
	if !c.captured(t) {
		return
	}
	root := t.relation
	if root.kind == 'p' {
		c.next[root.oid] = sight{root: root.oid}
	}
	for _, leaf := range root.leaves() {
		if leaf.kind == 'r' { // a foreign table has no events either way
			c.leaf(ctx, root, leaf)
		}
	}
	if now, there := c.next[root.oid]; there && c.cameBack(ctx, root) {
		now.flags |= outside
		c.next[root.oid] = now
	}
}

// cameBack tells of a table that was out of its publication, and reports whether to
// tell of it again. Who wrote to it before it was back may end after the gap, and
// after the gap's repair: what the repair could not see is missing, too.
func (c *comparison) cameBack(ctx context.Context, root *relation) (again bool) {
	oid := root.oid
	joined := c.joined[oid]
	out := c.known(root) && c.memory.seen[oid].flags&outside != 0
	last, waiting := c.back[oid]
	switch {
	case joined == behindWriters || joined == 0 && !out:
		delete(c.back, oid)
		return false
	case joined == besideWriters: // which the log says
	case !waiting:
		c.add(*c.outsideGap(root))
	case c.oldest < last:
		return true
	default:
		c.add(*c.outsideGap(root))
		delete(c.back, oid)
		return false
	}
	if !c.written(ctx, root) {
		return false
	}
	c.back[oid] = c.youngest
	return true
}

// written reports whether somebody who has not ended may have written to the table.
func (c *comparison) written(ctx context.Context, root *relation) bool {
	const query = `
SELECT EXISTS (
  SELECT
  FROM pg_catalog.pg_locks
  WHERE locktype = 'relation'
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND relation = ANY($1::oid[])
    AND granted
    AND mode = 'RowExclusiveLock'
)`
	oids := []uint32{root.oid}
	for _, leaf := range root.leaves() {
		oids = append(oids, leaf.oid)
	}
	there := true
	err := c.conn.QueryRow(ctx, query, oids).Scan(&there)
	return there || err != nil
}

func (rd *round) outsideGap(root *relation) *gap {
	return &gap{root, GapRebuilt, "it was not in its publication for a while", nil}
}

func (c *comparison) readRunning(ctx context.Context) error {
	const query = `
SELECT pg_catalog.pg_snapshot_xmin(s)::text::bigint, pg_catalog.pg_snapshot_xmax(s)::text::bigint
FROM pg_catalog.pg_current_snapshot() AS s`
	return c.conn.QueryRow(ctx, query).Scan(&c.oldest, &c.youngest)
}

func (c *comparison) leaf(ctx context.Context, root, leaf *relation) {
	was, seen := c.memory.seen[leaf.oid]
	if !c.changed(root, leaf) {
		c.next[leaf.oid] = was
		return
	}
	d, there := c.details[leaf.oid]
	if !there { // dropped since the survey
		c.postpone(leaf, was, seen)
		return
	}
	now := sight{root: root.oid, file: d.file, links: leaf.links(root), version: d.version, flags: leaf.flags(), types: d.types}
	if now.types == was.types {
		now.types = was.types // one copy is enough
	}
	if c.known(root) {
		found, answered := c.judge(ctx, change{root, leaf, was, now, d, seen && was.root == root.oid})
		if !answered {
			c.postpone(leaf, was, seen)
			return
		}
		if found != nil {
			c.add(*found)
		}
	}
	c.next[leaf.oid] = now
}

// postpone leaves a leaf as it was remembered, so that the next round compares it.
func (c *comparison) postpone(leaf *relation, was sight, seen bool) {
	c.postponed = true
	if seen {
		c.next[leaf.oid] = was
	}
}

// gone finds partitions that left their table with whatever rows they had, and keeps
// the memory of tables that are not back in their publication.
func (c *comparison) gone() {
	for oid, was := range c.memory.seen {
		now, there := c.next[oid]
		if there && now.root == was.root {
			continue
		}
		root := c.listed[was.root]
		if root == nil || !c.known(root) {
			continue
		}
		if _, captured := c.next[was.root]; captured {
			if had := c.gaps[was.root]; had != nil && had.reason != GapTruncated {
				continue
			}
			c.add(gap{root, GapRewritten, "a partition was detached or dropped, and its rows with it" + c.nameOf(oid), nil})
			continue
		}
		if c.memory.seen[was.root].flags&outside != 0 && !there {
			c.next[oid] = was
		}
	}
}

func (c *comparison) nameOf(oid uint32) string {
	i := slices.IndexFunc(c.all, func(r *relation) bool { return r.oid == oid })
	if i < 0 {
		return ""
	}
	return ": " + c.all[i].String()
}

// adopt makes what was seen the memory.
func (c *comparison) adopt(ctx context.Context, horizon uint64) {
	m := c.memory
	if c.postponed {
		c.outstanding = true
	}
	// The horizon belongs to what is remembered of every leaf.
	if !c.postponed || m.fresh() {
		m.horizon = horizon
	}
	if !maps.Equal(m.seen, c.next) {
		m.seen, m.unsaved = c.next, true
	}
	c.save(ctx)
}
