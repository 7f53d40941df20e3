package lockstep

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// The layout of a batch, little endian. docs/wire-batch.md tells it in full.
//
//	 0 magic "LSB" and version 1
//	 4 CRC-32C of everything from byte 8 on
//	 8 first seq            u64
//	16 number of changes    u32
//	20 flags                u32, bit 0: Mark.Complete
//	24 Mark.CommitLSN       u64
//	32 Mark.Ordinal         u32
//	36 Mark.CommitIdx       u32
//	40 Mark.EndLSN          u64
//	48 system identifier    u64
//	56 timeline             u32
//	60 offset of the tables u32
//	64 offset of the transactions u32
//	68 records, then tables, then transactions
const (
	batchMagic  = "LSB\x01"
	batchHeader = 68

	// RecordHeader is the size of the fixed part of a record: size u32, action u8,
	// flags u8, table u16, transaction u32, commit index u32, key hash u64, and the
	// lengths of record, changes, pks, extra, each u32.
	recordHeader = 40

	flagComplete = 1
	flagOldKnown = 1

	// keyAddressed is a bit beside a table's kind of key: the consumer that the
	// records are for and the progress of who wrote them follow the name.
	keyAddressed = 0x80
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// RecordHead is the fixed part of a record, filled in by whoever writes it.
type RecordHead struct {
	Action    Action
	OldKnown  bool   // metadata.old_known
	Table     uint16 // from [BatchWriter.Table]
	CommitIdx uint32
	KeyHash   uint64 // from [KeyHash]; equal keys of one table have equal hashes

	// The lengths of the parts appended after Open, in the order in which they were
	// appended: Record and Changes are JSON values or empty for null, PKs is a JSON
	// array of strings, Extra is a fragment of metadata such as `,"unchanged":["a"]`.
	RecordLen, ChangesLen, PKsLen, ExtraLen int
}

// BatchWriter packs changes into one batch. The writer is used by one goroutine;
// appending a record allocates nothing once the buffer has its size.
type BatchWriter struct {
	buf    []byte
	open   int // start of the open record
	count  uint32
	tables []*Table
	txs    []Tx
}

// Reset begins an empty batch in buf, whose content is lost. The writer owns buf
// until Seal hands it on.
func (w *BatchWriter) Reset(buf []byte) {
	w.buf = append(buf[:0], make([]byte, batchHeader)...)
	w.count = 0
	w.tables = w.tables[:0]
	w.txs = w.txs[:0]
}

// Len returns the number of bytes written so far, and Count the number of changes.
func (w *BatchWriter) Len() int { return len(w.buf) }

// Count returns the number of changes in the batch.
func (w *BatchWriter) Count() int { return int(w.count) }

// Begin says that the records that follow belong to tx. It is called again when a
// transaction goes on in a new batch, or when its annotations change on the way.
func (w *BatchWriter) Begin(tx Tx) { w.txs = append(w.txs, tx) }

// Table returns the number by which records of this batch name t. Tables are told
// apart by pointer: pass the same pointer as long as the table has not changed.
func (w *BatchWriter) Table(t *Table) uint16 {
	for i, v := range slices.Backward(w.tables) {
		if v == t {
			return uint16(i)
		}
	}
	w.tables = append(w.tables, t)
	return uint16(len(w.tables) - 1)
}

// Full reports that the batch can name no further table and must be sealed.
func (w *BatchWriter) Full() bool {
	return len(w.tables) >= math.MaxUint16 || len(w.buf) > math.MaxInt32
}

// Open starts a record and returns the buffer to append its parts to: record,
// changes, pks, extra. Hand the grown buffer to Close.
func (w *BatchWriter) Open() []byte {
	w.open = len(w.buf)
	return append(w.buf, make([]byte, recordHeader)...)
}

// Close finishes the record that Open started. Begin must have been called.
func (w *BatchWriter) Close(buf []byte, h RecordHead) {
	w.buf = buf
	b := buf[w.open:]
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(len(b)))
	b[4] = byte(h.Action)
	b[5] = 0
	if h.OldKnown {
		b[5] = flagOldKnown
	}
	le.PutUint16(b[6:], h.Table)
	le.PutUint32(b[8:], uint32(len(w.txs)-1))
	le.PutUint32(b[12:], h.CommitIdx)
	le.PutUint64(b[16:], h.KeyHash)
	le.PutUint32(b[24:], uint32(h.RecordLen))
	le.PutUint32(b[28:], uint32(h.ChangesLen))
	le.PutUint32(b[32:], uint32(h.PKsLen))
	le.PutUint32(b[36:], uint32(h.ExtraLen))
	w.count++
}

// Abandon drops the record that Open started, as if it had not been.
func (w *BatchWriter) Abandon(buf []byte) { w.buf = buf[:w.open] }

// Seal closes the batch and returns its bytes, which the writer no longer owns.
// The mark tells where the batch ends; its Seq is computed: first-1 plus the
// number of changes. A batch may hold no change at all: it only moves the mark.
func (w *BatchWriter) Seal(first uint64, mark Mark) ([]byte, error) {
	if len(w.buf) > math.MaxUint32-(1<<26) {
		return nil, fmt.Errorf("batch of %d bytes: %w", len(w.buf), ErrInvalid)
	}
	le := binary.LittleEndian
	tables := len(w.buf)
	w.buf = le.AppendUint16(w.buf, uint16(len(w.tables)))
	for _, t := range w.tables {
		w.buf = le.AppendUint32(w.buf, t.OID)
		key := byte(t.Key)
		if t.Consumer != "" || t.Progress != "" {
			key |= keyAddressed
		}
		w.buf = append(w.buf, key)
		w.buf = appendString(w.buf, t.Schema)
		w.buf = appendString(w.buf, t.Name)
		if key&keyAddressed != 0 {
			w.buf = appendString(w.buf, t.Consumer)
			w.buf = appendString(w.buf, t.Progress)
		}
	}
	txs := len(w.buf)
	w.buf = le.AppendUint32(w.buf, uint32(len(w.txs)))
	for _, t := range w.txs {
		w.buf = le.AppendUint64(w.buf, uint64(t.CommitLSN))
		w.buf = le.AppendUint64(w.buf, uint64(t.CommitTime))
		w.buf = le.AppendUint32(w.buf, t.XID)
		w.buf = append(w.buf, byte(t.Origin))
		w.buf = le.AppendUint32(w.buf, uint32(len(t.Annotations)))
		w.buf = append(w.buf, t.Annotations...)
	}
	b := w.buf
	copy(b, batchMagic)
	le.PutUint64(b[8:], first)
	le.PutUint32(b[16:], w.count)
	var flags uint32
	if mark.Complete {
		flags |= flagComplete
	}
	le.PutUint32(b[20:], flags)
	le.PutUint64(b[24:], uint64(mark.CommitLSN))
	le.PutUint32(b[32:], mark.Ordinal)
	le.PutUint32(b[36:], mark.CommitIdx)
	le.PutUint64(b[40:], uint64(mark.EndLSN))
	le.PutUint64(b[48:], mark.SystemID)
	le.PutUint32(b[56:], mark.Timeline)
	le.PutUint32(b[60:], uint32(tables))
	le.PutUint32(b[64:], uint32(txs))
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	w.buf = nil
	return b, nil
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// KeyHash hashes the identity of a row: its table's name and the text of its key
// columns, each followed by a separator by [KeyHashPart]. The hash is stable for
// ever: it is stored. Equal hashes of different keys only make two keys wait for
// each other.
func KeyHash(t *Table) uint64 {
	return KeyHashPart(KeyHashPart(fnvOffset, []byte(t.Schema)), []byte(t.Name))
}

// KeyHashPart continues a key's hash with the text of the next column.
func KeyHashPart(h uint64, text []byte) uint64 {
	for _, c := range text {
		h = (h ^ uint64(c)) * fnvPrime
	}
	// A separator that UTF-8 text cannot hold keeps ("a","bc") and ("ab","c") apart.
	h = (h ^ 0xff) * fnvPrime
	return h
}

// KeyHashNull continues a key's hash with a NULL.
func KeyHashNull(h uint64) uint64 { return (h ^ 0xfe) * fnvPrime }

const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)
