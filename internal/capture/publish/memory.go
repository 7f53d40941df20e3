package publish

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"lockstep"
	"lockstep/internal/obs"
)

// Seen keeps the memory of a Reconciler over restarts: some twenty bytes per table
// and partition, as a whole. It is loaded once, and saved after a round in which a
// table was made, altered or dropped. Calls come one at a time.
type Seen interface {
	// Load returns what was saved last; nothing, or an error that wraps
	// [lockstep.ErrNotFound], when nothing was. On other errors nothing is compared
	// until it succeeds.
	Load(ctx context.Context) ([]byte, error)
	// Save is durable when it returns. It may keep the slice.
	Save(ctx context.Context, seen []byte) error
}

// sight is what a table with rows of its own looked like: a plain table, or a leaf
// of a partitioned one. The partitioned table itself has one that says only that it
// was captured.
type sight struct {
	root    uint32 // oid of the captured table: its own, or that above it
	file    uint32 // pg_class.relfilenode
	links   uint32 // hash of how it hangs below the root
	version uint32 // hash of its rows in pg_attribute
	flags   uint8
	types   string // of its columns, by number, as appendTypes writes them
}

// The flags of a sight.
const (
	unlogged uint8 = 1 << iota // its writes make no events
	outside                    // somebody took the table out of its publication
)

// memory is what the last survey saw of all captured tables.
type memory struct {
	cluster  uint64 // system identifier; 0: not known
	database uint32 // oid
	// horizon is catalog.horizon of the survey, or of one before it: transactions
	// that are older had ended.
	horizon uint64
	seen    map[uint32]sight // by oid
	unsaved bool             // Seen does not have it yet
}

func (m *memory) fresh() bool { return m.horizon == 0 }

// samePlace reports whether both are about one database.
func (m *memory) samePlace(other *memory) bool {
	return m.database == other.database && (m.cluster == other.cluster || m.cluster == 0 || other.cluster == 0)
}

// recall loads the memory when the process has none yet.
func (rd *round) recall(ctx context.Context) {
	if rd.memory != nil {
		return
	}
	m, err := rd.load(ctx)
	rd.said.memory(ctx, rd.config.Logger, err)
	if err != nil {
		rd.outstanding = true
		return
	}
	rd.memory = m
}

func (rd *round) load(ctx context.Context) (*memory, error) {
	here := &memory{seen: map[uint32]sight{}}
	const database = `
SELECT oid
FROM pg_catalog.pg_database
WHERE datname = current_database()`
	const cluster = `
SELECT system_identifier
FROM pg_catalog.pg_control_system()`
	if err := rd.conn.QueryRow(ctx, database).Scan(&here.database); err != nil {
		return nil, fmt.Errorf("read the database's oid: %w", err)
	}
	var id int64
	if err := rd.conn.QueryRow(ctx, cluster).Scan(&id); err != nil && sqlState(err) != stateDenied {
		return nil, fmt.Errorf("read the system identifier: %w", err)
	}
	here.cluster = uint64(id)
	if rd.config.Seen == nil {
		return here, nil
	}
	saved, err := rd.config.Seen.Load(ctx)
	if errors.Is(err, lockstep.ErrNotFound) || err == nil && len(saved) == 0 {
		return here, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load what the tables looked like: %w", err)
	}
	m, err := decodeMemory(saved)
	if err != nil {
		rd.config.Logger.WarnContext(ctx, "what the tables looked like at the last start cannot be read: what was rewritten since is not noticed", obs.KeyError, err.Error())
		return here, nil
	}
	if !m.samePlace(here) {
		rd.config.Logger.WarnContext(ctx, "this is another database than at the last start: its tables are seen for the first time")
		return here, nil
	}
	return m, nil
}

// since is the horizon to ask the catalog for.
func (rd *round) since() uint64 {
	if rd.memory == nil {
		return 0
	}
	return rd.memory.horizon
}

// save hands the memory to Seen, when it has changed.
func (rd *round) save(ctx context.Context) {
	m := rd.memory
	if m.unsaved && rd.config.Seen != nil {
		if err := rd.config.Seen.Save(ctx, m.encode()); err != nil {
			rd.outstanding = true
			rd.said.memory(ctx, rd.config.Logger, fmt.Errorf("save what the tables look like: %w", err))
			return
		}
	}
	m.unsaved = false
	rd.said.memory(ctx, rd.config.Logger, nil)
}

// format begins every saved memory; the digit is its version.
const format = "lockstep seen 1\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes the tables by oid, as differences to the one before, and each list
// of types once. A checksum ends it.
func (m *memory) encode() []byte {
	b := append(make([]byte, 0, 64+24*len(m.seen)), format...)
	b = binary.BigEndian.AppendUint64(b, m.cluster)
	b = binary.BigEndian.AppendUint32(b, m.database)
	b = binary.BigEndian.AppendUint64(b, m.horizon)
	lists := make(map[string]uint64)
	b = binary.AppendUvarint(b, uint64(len(m.seen)))
	last := uint32(0)
	for _, oid := range slices.Sorted(maps.Keys(m.seen)) {
		s := m.seen[oid]
		b = binary.AppendUvarint(b, uint64(oid-last))
		b = append(b, s.flags)
		b = binary.AppendVarint(b, int64(s.root)-int64(oid))
		b = binary.AppendVarint(b, int64(s.file)-int64(oid))
		b = binary.BigEndian.AppendUint32(b, s.links)
		b = binary.BigEndian.AppendUint32(b, s.version)
		list, known := lists[s.types]
		if !known {
			list = uint64(len(lists))
			lists[s.types] = list
		}
		b = binary.AppendUvarint(b, list)
		if !known {
			b = binary.AppendUvarint(b, uint64(len(s.types)))
			b = append(b, s.types...)
		}
		last = oid
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errDamaged = errors.New("it is damaged, or of another version")

func decodeMemory(b []byte) (*memory, error) {
	const fixed = len(format) + 8 + 4 + 8
	if len(b) < fixed+1+4 || string(b[:len(format)]) != format {
		return nil, errDamaged
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return nil, errDamaged
	}
	at := len(format)
	m := &memory{
		cluster: binary.BigEndian.Uint64(body[at:]), database: binary.BigEndian.Uint32(body[at+8:]), horizon: binary.BigEndian.Uint64(body[at+12:]),
	}
	r := &reader{b: body[fixed:]}
	n := r.unsigned()
	m.seen = make(map[uint32]sight, min(n, uint64(len(r.b))))
	var lists []string
	oid := uint32(0)
	for range n {
		oid += uint32(r.unsigned())
		s := sight{flags: r.fixed(1)[0]}
		s.root, s.file = uint32(r.signed()+int64(oid)), uint32(r.signed()+int64(oid))
		s.links, s.version = binary.BigEndian.Uint32(r.fixed(4)), binary.BigEndian.Uint32(r.fixed(4))
		list := r.unsigned()
		if list == uint64(len(lists)) {
			lists = append(lists, string(r.fixed(r.unsigned())))
		}
		if r.bad || list >= uint64(len(lists)) {
			return nil, errDamaged
		}
		s.types = lists[list]
		m.seen[oid] = s
	}
	if len(r.b) > 0 {
		return nil, errDamaged
	}
	return m, nil
}

// reader takes values from the front of a slice, until one is not there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	r.skip(n)
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.b)
	r.skip(n)
	return v
}

func (r *reader) skip(n int) {
	if n <= 0 {
		r.b, r.bad = nil, true
		return
	}
	r.b = r.b[n:]
}

func (r *reader) fixed(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return make([]byte, min(n, 8))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}
