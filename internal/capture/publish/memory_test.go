package publish

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// shelf is a Seen in memory.
type shelf struct {
	seen    []byte
	history [][]byte // of what was saved
	saves   int
	err     error
}

func (s *shelf) Load(context.Context) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.seen == nil {
		return nil, fmt.Errorf("nothing yet: %w", lockstep.ErrNotFound)
	}
	return s.seen, nil
}

func (s *shelf) Save(_ context.Context, seen []byte) error {
	if s.err != nil {
		return s.err
	}
	s.saves++
	s.seen, s.history = seen, append(s.history, seen)
	return nil
}

func (s *shelf) keep(c *Config) { c.Seen = s }

func TestWhatWasRewrittenWhileLockstepWasDownIsFoundAtTheNextStart(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, s := seenBefore(t, plainTable, strings.NewReplacer("TABLE t ", "TABLE part ", "OF t ", "OF part ", "INTO t ", "INTO part ").Replace(partitionedTable))
	ensure(t, newReconciler(t, db, kept.keep))
	pgtest.Exec(t, db, "ALTER TABLE t ALTER n TYPE bigint", "VACUUM FULL p2", "TRUNCATE p1", "CREATE TABLE young (id int PRIMARY KEY)")
	again := newReconciler(t, db, kept.keep)
	ensure(t, again)
	wantGaps(t, s, "leaf_truncated public.part", rewrittenT)
	ensure(t, newReconciler(t, db, kept.keep))
	wantGaps(t, s)
}

func TestMemoryIsSavedOnlyWhenATableChanged(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, _ := seenBefore(t, plainTable)
	r := newReconciler(t, db, kept.keep)
	saves := func() int { ensure(t, r); return kept.saves }
	first := saves()
	if first == 0 {
		t.Fatal("the first round saved nothing")
	}
	pgtest.Exec(t, db, "INSERT INTO t VALUES (3)", "UPDATE t SET v = 'z'")
	if n := saves(); n != first {
		t.Errorf("saved %d times for changes of rows", n-first)
	}
	pgtest.Exec(t, db, "ALTER TABLE t ADD w int")
	if n := saves(); n != first+1 {
		t.Errorf("saved %d times for one altered table", n-first)
	}
}

func TestMemoryForgetsDroppedTables(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, _ := seenBefore(t, plainTable, "CREATE TABLE stays (id int PRIMARY KEY)")
	r := newReconciler(t, db, kept.keep)
	ensure(t, r)
	pgtest.Exec(t, db, "DROP TABLE t")
	ensure(t, r)
	m, err := decodeMemory(kept.seen)
	if err != nil || len(m.seen) != 1 || len(r.memory.seen) != 1 {
		t.Errorf("remembered: %d tables in memory, saved %+v, %v; want 1", len(r.memory.seen), m, err)
	}
}

func TestMarkOutlivesACrashBeforeTheTableIsBack(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, s := seenBefore(t, plainTable)
	r := newReconciler(t, db, kept.keep)
	ensure(t, r)
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	pgtest.Exec(t, db, "ALTER PUBLICATION lockstep_app DROP TABLE t")
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	ensure(t, r) // sees it, and cannot take it back
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	wantGaps(t, s)
	ensure(t, newReconciler(t, db, kept.keep, func(c *Config) { c.JoinAttempts = 1 }))
	wantGaps(t, s, "publication_rebuilt public.t")
}

func TestMarkIsSavedBeforeTheTableIsTakenBack(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, s := seenBefore(t, plainTable)
	r := newReconciler(t, db, kept.keep)
	ensure(t, r)
	before := kept.saves
	pgtest.Exec(t, db, "ALTER PUBLICATION lockstep_app DROP TABLE t")
	ensure(t, r)
	wantGaps(t, s, "publication_rebuilt public.t")
	if kept.saves != before+2 {
		t.Fatalf("saved %d times, want once before and once after", kept.saves-before)
	}
	crashed := &shelf{seen: kept.history[before]} // in between
	ensure(t, newReconciler(t, db, crashed.keep))
	wantGaps(t, s, "publication_rebuilt public.t")
}

func TestWhatHappenedBeforeTheSlotIsNoGap(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, s := seenBefore(t, plainTable)
	ensure(t, newReconciler(t, db, kept.keep))
	pgtest.Exec(t, db, "ALTER TABLE t ALTER n TYPE bigint", "ALTER PUBLICATION lockstep_app DROP TABLE t")
	r := newReconciler(t, db, kept.keep)
	prepare(t, r)
	ensure(t, r)
	wantGaps(t, s)
}

func TestNothingIsComparedWithoutWhatWasSaved(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, s := seenBefore(t, plainTable)
	ensure(t, newReconciler(t, db, kept.keep))
	pgtest.Exec(t, db, "ALTER TABLE t ALTER n TYPE bigint", "CREATE TABLE young (id int PRIMARY KEY)")
	kept.err = errors.New("the disk is away")
	r := newReconciler(t, db, kept.keep)
	if s := stateOf(t, ensure(t, r), "public.young"); s.Published != Full {
		t.Errorf("publishing does not wait for it: %+v", s)
	}
	wantGaps(t, s)
	kept.err = nil
	ensure(t, r)
	wantGaps(t, s, rewrittenT)
}

func TestGapIsToldAgainRatherThanLostWhenSavingFails(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, s := seenBefore(t, plainTable)
	r := newReconciler(t, db, kept.keep)
	ensure(t, r)
	pgtest.Exec(t, db, "ALTER TABLE t ALTER n TYPE bigint")
	kept.err = errors.New("the disk is full")
	ensure(t, r)
	wantGaps(t, s, rewrittenT)
	kept.err = nil
	ensure(t, newReconciler(t, db, kept.keep))
	wantGaps(t, s, rewrittenT)
}

func TestMemoryOfAnotherDatabaseIsNotUsed(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	one, _, _ := seenBefore(t, plainTable)
	ensure(t, newReconciler(t, one, kept.keep))
	other, _, s := seenBefore(t, plainTable)
	ensure(t, newReconciler(t, other, kept.keep))
	wantGaps(t, s)
	if m, err := decodeMemory(kept.seen); err != nil || len(m.seen) != 1 {
		t.Errorf("saved %+v, %v", m, err)
	}
}

func TestMemoryReadsAsItWasWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sights := rapid.Custom(func(t *rapid.T) sight {
			return sight{
				root: rapid.Uint32().Draw(t, "root"), file: rapid.Uint32().Draw(t, "file"), links: rapid.Uint32().Draw(t, "links"),
				version: rapid.Uint32().Draw(t, "version"), flags: rapid.Uint8().Draw(t, "flags"),
				types: appendTypes(rapid.SliceOf(rapid.SampledFrom([]uint32{0, 23, 25, 1 << 31})).Draw(t, "types")),
			}
		})
		m := &memory{
			cluster: rapid.Uint64().Draw(t, "cluster"), database: rapid.Uint32().Draw(t, "database"), horizon: rapid.Uint64().Draw(t, "horizon"),
			seen: rapid.MapOf(rapid.Uint32(), sights).Draw(t, "seen"),
		}
		b := m.encode()
		got, err := decodeMemory(b)
		if err != nil || got.cluster != m.cluster || got.database != m.database || got.horizon != m.horizon || !maps.Equal(got.seen, m.seen) {
			t.Fatalf("got %+v, %v, want %+v", got, err, m)
		}
		i := rapid.IntRange(0, len(b)-1).Draw(t, "i")
		b[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := decodeMemory(b); err == nil {
			t.Fatalf("a flipped bit in byte %d of %d is not noticed", i, len(b))
		}
		if _, err := decodeMemory(b[:i]); err == nil {
			t.Fatalf("%d of %d bytes are read as a whole", i, len(b))
		}
	})
}

func FuzzDecodeMemory(f *testing.F) {
	m := &memory{database: 5, horizon: 700, seen: map[uint32]sight{16384: {root: 16384, file: 16390, types: appendTypes([]uint32{23, 25})}, 16400: {root: 16384}}}
	f.Add(m.encode())
	f.Add([]byte(format))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMemory(resealed(b))
		if err != nil {
			return
		}
		again, err := decodeMemory(m.encode())
		if err != nil || !maps.Equal(m.seen, again.seen) {
			t.Fatalf("got %+v, %v, want %+v", again, err, m)
		}
	})
}

func TestMemoryOfManyTablesIsSmall(t *testing.T) {
	t.Parallel()
	const tables = 100_000
	m := &memory{cluster: 1 << 60, database: 16384, horizon: 1 << 40, seen: make(map[uint32]sight, tables)}
	types := appendTypes([]uint32{23, 25, 25, 1184, 3802, 23, 16, 1700, 2950, 25})
	for i := range uint32(tables) {
		oid := 16384 + 7*i
		m.seen[oid] = sight{root: oid, file: oid, version: oid * 2654435761, types: types}
	}
	began := time.Now()
	b := m.encode()
	if _, err := decodeMemory(b); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, written and read in %s", len(b), time.Since(began))
	if len(b) > 20*tables {
		t.Errorf("%d bytes for %d tables", len(b), tables)
	}
}

// resealed puts the right checksum behind whatever a fuzzer made.
func resealed(b []byte) []byte {
	if len(b) < 4 {
		return b
	}
	body := b[:len(b)-4]
	return binary.BigEndian.AppendUint32(append([]byte(nil), body...), crc32.Checksum(body, castagnoli))
}
