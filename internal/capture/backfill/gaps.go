package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/capture/wal"
)

// Keep is where open gaps survive a restart. Load gives lockstep.ErrNotFound for a
// database that has never had one.
type Keep interface {
	Load(ctx context.Context, database string) ([]byte, error)
	Save(ctx context.Context, database string, value []byte) error
}

// Gaps are the places of each database's stream where changes may be missing and
// that are not repaired. Its methods may be called concurrently.
type Gaps struct {
	keep Keep

	mu sync.Mutex // guards what follows, and is held while it is saved
	of map[string]*openGaps
}

// OpenGap is a gap that is not repaired.
type OpenGap struct {
	Number uint64 // of its latest occurrence; later gaps of the database have higher ones
	Reason string
	Tables []lockstep.Table // none: every table
	From   lockstep.LSN     // 0: unknown
	To     lockstep.LSN
	At     time.Time // when it was found first
}

type openGaps struct {
	Last uint64 // the highest number ever given
	List []keptGap
}

// keptGap is an OpenGap as it is stored.
type keptGap struct {
	Number   uint64      `json:"number"`
	Reason   string      `json:"reason"`
	Tables   []keptTable `json:"tables,omitempty"`
	From, To uint64
	At       time.Time `json:"at"`
}

type keptTable struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// NewGaps knows nothing until Load.
func NewGaps(keep Keep) *Gaps { return &Gaps{keep: keep, of: map[string]*openGaps{}} }

// Load reads the open gaps of a database, once. Open and Close do it by themselves.
func (g *Gaps) Load(ctx context.Context, database string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := g.load(ctx, database)
	return err
}

func (g *Gaps) load(ctx context.Context, database string) (*openGaps, error) {
	if known := g.of[database]; known != nil {
		return known, nil
	}
	value, err := g.keep.Load(ctx, database)
	known := &openGaps{}
	switch {
	case errors.Is(err, lockstep.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("read the open gaps of database %s: %w", database, err)
	default:
		if err := json.Unmarshal(value, known); err != nil {
			return nil, fmt.Errorf("the open gaps of database %s are stored as something else: %w: %w", database, err, lockstep.ErrCorrupt)
		}
	}
	g.of[database] = known
	return known, nil
}

// Open notes a gap; it is stored when Open returns nil. The same gap told twice is
// noted once. One with the reason and the tables of an open one makes that wider.
func (g *Gaps) Open(ctx context.Context, database string, gap wal.Gap) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, err := g.load(ctx, database)
	if err != nil {
		return err
	}
	fresh := keptGap{Number: known.Last + 1, Reason: gap.Reason, From: uint64(gap.From), To: uint64(gap.To), At: time.Now().UTC()}
	for _, t := range gap.Tables {
		fresh.Tables = append(fresh.Tables, keptTable{t.OID, t.Schema, t.Name})
	}
	next := &openGaps{Last: fresh.Number, List: slices.Clone(known.List)}
	i := slices.IndexFunc(next.List, func(k keptGap) bool { return k.Reason == fresh.Reason && slices.Equal(k.Tables, fresh.Tables) })
	switch {
	case i < 0:
		next.List = append(next.List, fresh)
	case next.List[i].To == fresh.To:
		return nil
	default:
		k := &next.List[i]
		k.Number, k.From, k.To = fresh.Number, min(k.From, fresh.From), max(k.To, fresh.To)
	}
	return g.save(ctx, database, next)
}

// List returns the open gaps of a database, the oldest first, as they were loaded or
// opened since.
func (g *Gaps) List(database string) []OpenGap {
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.of[database]
	if known == nil {
		return nil
	}
	list := make([]OpenGap, len(known.List))
	for i, k := range known.List {
		list[i] = OpenGap{Number: k.Number, Reason: k.Reason, From: lockstep.LSN(k.From), To: lockstep.LSN(k.To), At: k.At}
		for _, t := range k.Tables {
			list[i].Tables = append(list[i].Tables, lockstep.Table{OID: t.OID, Schema: t.Schema, Name: t.Name})
		}
	}
	return list
}

// Close forgets those of the gaps that have not become wider since they were listed.
func (g *Gaps) Close(ctx context.Context, database string, gaps ...OpenGap) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, err := g.load(ctx, database)
	if err != nil {
		return err
	}
	next := &openGaps{Last: known.Last, List: slices.DeleteFunc(slices.Clone(known.List), func(k keptGap) bool {
		return slices.ContainsFunc(gaps, func(o OpenGap) bool { return o.Number == k.Number })
	})}
	return g.save(ctx, database, next)
}

func (g *Gaps) save(ctx context.Context, database string, next *openGaps) error {
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := g.keep.Save(ctx, database, value); err != nil {
		return fmt.Errorf("keep the open gaps of database %s: %w", database, err)
	}
	g.of[database] = next
	return nil
}

// concerns reports whether changes of the table may be missing.
func (o *OpenGap) concerns(at *Place) bool {
	return len(o.Tables) == 0 || slices.ContainsFunc(o.Tables, func(t lockstep.Table) bool {
		return t.OID == at.OID || t.Schema == at.Schema && t.Name == at.Name
	})
}
