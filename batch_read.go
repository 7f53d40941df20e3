package lockstep

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Batch is a sealed batch, checked and indexed. It is safe for concurrent use.
type Batch struct {
	First uint64 // seq of the first change
	Mark  Mark   // where the batch ends; Mark.Seq is the last change's seq
	// StreamSeq is where the batch lies in the stream's own numbering; it is set by
	// the stream and means nothing outside of it.
	StreamSeq uint64

	data    []byte
	offsets []uint32 // of each record
	tables  []Table
	byTable [][]uint32 // record indices of each table
	txs     []Tx
}

// ParseBatch checks data, which it keeps, and indexes it. Damaged or foreign
// bytes give an error that wraps [ErrCorrupt]; they never panic.
func ParseBatch(data []byte) (*Batch, error) {
	b, err := PeekBatch(data)
	if err != nil {
		return nil, err
	}
	if got := crc32.Checksum(data[8:], castagnoli); got != binary.LittleEndian.Uint32(data[4:]) {
		return nil, fmt.Errorf("checksum differs at seq %d: %w", b.First, ErrCorrupt)
	}
	le := binary.LittleEndian
	count := le.Uint32(data[16:])
	tables, txs := le.Uint32(data[60:]), le.Uint32(data[64:])
	if tables < batchHeader || tables > txs || int64(txs) > int64(len(data)) {
		return nil, fmt.Errorf("sections out of range: %w", ErrCorrupt)
	}
	if err := b.parseTables(data[tables:txs]); err != nil {
		return nil, err
	}
	if err := b.parseTxs(data[txs:]); err != nil {
		return nil, err
	}
	if err := b.parseRecords(data[:tables], count); err != nil {
		return nil, err
	}
	return b, nil
}

// PeekBatch reads only the fixed head of a batch: First and Mark. The rest is
// neither checked nor indexed; such a Batch has no records.
func PeekBatch(data []byte) (*Batch, error) {
	if len(data) < batchHeader || string(data[:4]) != batchMagic {
		return nil, fmt.Errorf("not a batch of version 1: %w", ErrCorrupt)
	}
	le := binary.LittleEndian
	b := &Batch{data: data, First: le.Uint64(data[8:])}
	b.Mark = Mark{
		Seq:       b.First + uint64(le.Uint32(data[16:])) - 1,
		SystemID:  le.Uint64(data[48:]),
		Timeline:  le.Uint32(data[56:]),
		CommitLSN: LSN(le.Uint64(data[24:])),
		Ordinal:   le.Uint32(data[32:]),
		CommitIdx: le.Uint32(data[36:]),
		EndLSN:    LSN(le.Uint64(data[40:])),
		Complete:  le.Uint32(data[20:])&flagComplete != 0,
	}
	return b, nil
}

func (b *Batch) parseRecords(data []byte, count uint32) error {
	if int64(count)*recordHeader > int64(len(data)) {
		return fmt.Errorf("%d records in %d bytes: %w", count, len(data), ErrCorrupt)
	}
	le := binary.LittleEndian
	b.offsets = make([]uint32, 0, count)
	b.byTable = make([][]uint32, len(b.tables))
	at := uint64(batchHeader)
	for i := range count {
		if at+recordHeader > uint64(len(data)) {
			return fmt.Errorf("record %d is cut off: %w", i, ErrCorrupt)
		}
		h := data[at:]
		size := uint64(le.Uint32(h))
		parts := uint64(le.Uint32(h[24:])) + uint64(le.Uint32(h[28:])) + uint64(le.Uint32(h[32:])) + uint64(le.Uint32(h[36:]))
		table := le.Uint16(h[6:])
		if at+size > uint64(len(data)) || size != recordHeader+parts || int(table) >= len(b.tables) || int(le.Uint32(h[8:])) >= len(b.txs) {
			return fmt.Errorf("record %d is damaged: %w", i, ErrCorrupt)
		}
		b.offsets = append(b.offsets, uint32(at))
		b.byTable[table] = append(b.byTable[table], i)
		at += size
	}
	return nil
}

func (b *Batch) parseTables(data []byte) error {
	r := cutter{data: data}
	n := int(r.uint16())
	if n*9 > len(data) {
		return fmt.Errorf("%d tables in %d bytes: %w", n, len(data), ErrCorrupt)
	}
	b.tables = make([]Table, n)
	for i := range b.tables {
		t := &b.tables[i]
		t.OID = r.uint32()
		key := r.uint8()
		t.Key = KeyKind(key &^ keyAddressed)
		t.Schema = string(r.bytes(int(r.uint16())))
		t.Name = string(r.bytes(int(r.uint16())))
		if key&keyAddressed != 0 {
			t.Consumer = string(r.bytes(int(r.uint16())))
			t.Progress = string(r.bytes(int(r.uint16())))
		}
	}
	return r.err("tables")
}

func (b *Batch) parseTxs(data []byte) error {
	r := cutter{data: data}
	n := int(r.uint32())
	if n*25 > len(data) {
		return fmt.Errorf("%d transactions in %d bytes: %w", n, len(data), ErrCorrupt)
	}
	b.txs = make([]Tx, n)
	for i := range b.txs {
		t := &b.txs[i]
		t.CommitLSN = LSN(r.uint64())
		t.CommitTime = int64(r.uint64())
		t.XID = r.uint32()
		t.Origin = Origin(r.uint8())
		t.Annotations = r.bytes(int(r.uint32()))
	}
	return r.err("transactions")
}

// Len returns the number of changes.
func (b *Batch) Len() int { return len(b.offsets) }

// Size returns the number of bytes that the batch holds in memory, about.
func (b *Batch) Size() int { return len(b.data) + 8*len(b.offsets) }

// Bytes returns the sealed batch. It must not be changed.
func (b *Batch) Bytes() []byte { return b.data }

// Tables returns the tables named in the batch, in the order of their numbers.
// The slice must not be changed.
func (b *Batch) Tables() []Table { return b.tables }

// OfTable returns the indices of the records of the table with that number,
// ascending. The slice must not be changed.
func (b *Batch) OfTable(number int) []uint32 { return b.byTable[number] }

// Record returns the i-th change, 0 <= i < Len.
func (b *Batch) Record(i int) Record {
	at := b.offsets[i]
	size := binary.LittleEndian.Uint32(b.data[at:])
	return Record{b: b, raw: b.data[at : at+size], seq: b.First + uint64(i)}
}

// Find returns the change with that seq, or false when the batch does not hold it.
func (b *Batch) Find(seq uint64) (Record, bool) {
	if seq < b.First || seq-b.First >= uint64(len(b.offsets)) {
		return Record{}, false
	}
	return b.Record(int(seq - b.First)), true
}

// Record is a view of one change in a batch. It is a small value; copying it
// copies no data. The slices that it returns must not be changed.
type Record struct {
	b   *Batch
	raw []byte
	seq uint64
}

// Seq returns the change's place in the stream.
func (r Record) Seq() uint64 { return r.seq }

// Action returns what happened.
func (r Record) Action() Action { return Action(r.raw[4]) }

// OldKnown reports whether the row as it was before the change is known.
func (r Record) OldKnown() bool { return r.raw[5]&flagOldKnown != 0 }

// TableNumber returns the table's number in the batch.
func (r Record) TableNumber() int { return int(binary.LittleEndian.Uint16(r.raw[6:])) }

// Table returns the table as it was at this place of the stream.
func (r Record) Table() *Table { return &r.b.tables[r.TableNumber()] }

// Tx returns the transaction of the change.
func (r Record) Tx() *Tx { return &r.b.txs[binary.LittleEndian.Uint32(r.raw[8:])] }

// CommitIdx returns the change's index in its transaction, from 0.
func (r Record) CommitIdx() uint32 { return binary.LittleEndian.Uint32(r.raw[12:]) }

// KeyHash returns the hash of the row's identity; see [KeyHash].
func (r Record) KeyHash() uint64 { return binary.LittleEndian.Uint64(r.raw[16:]) }

// Row returns the row as a JSON object, or nothing when there is none.
func (r Record) Row() []byte { return r.part(0) }

// Changes returns the old values of changed columns as a JSON object, or nothing
// when there are none or they are not known.
func (r Record) Changes() []byte { return r.part(1) }

// PKs returns the key's values as a JSON array of strings.
func (r Record) PKs() []byte { return r.part(2) }

// Extra returns further members of the message's metadata, each led by a comma.
func (r Record) Extra() []byte { return r.part(3) }

// Batch returns the batch that holds the change.
func (r Record) Batch() *Batch { return r.b }

func (r Record) part(n int) []byte {
	at := uint32(recordHeader)
	for i := range n {
		at += binary.LittleEndian.Uint32(r.raw[24+4*i:])
	}
	return r.raw[at : at+binary.LittleEndian.Uint32(r.raw[24+4*n:])]
}

// cutter reads fixed-size fields off a slice and remembers running short.
type cutter struct {
	data  []byte
	short bool
}

func (c *cutter) bytes(n int) []byte {
	if n < 0 || n > len(c.data) {
		c.short = true
		return nil
	}
	b := c.data[:n:n]
	c.data = c.data[n:]
	return b
}

func (c *cutter) uint8() uint8 {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cutter) uint16() uint16 {
	if b := c.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cutter) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cutter) uint64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cutter) err(section string) error {
	if c.short {
		return fmt.Errorf("section %s is cut off: %w", section, ErrCorrupt)
	}
	return nil
}
