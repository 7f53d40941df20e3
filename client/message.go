package client

import (
	"encoding/json"
	"fmt"
	"time"
)

// Delivery is a change that was handed out to this worker. Its parts share the
// memory of the answer it came in.
type Delivery struct {
	Token   string // for Ack, Nack and Extend of this delivery
	Attempt int    // from 1
	Change
}

// Change is one change as consumers see it. JSON values are the bytes that came.
type Change struct {
	Action   string          // insert, update, delete, read, truncate or gap
	Record   json.RawMessage // the row; nil when there is none
	Changes  json.RawMessage // of an update: the old values of changed columns; nil: none, or not known
	Metadata Metadata
}

// Metadata tells where a change comes from.
type Metadata struct {
	Database        string
	TableSchema     string
	TableName       string
	Seq             uint64 // the change's place in its database's stream
	CommitLSN       uint64
	CommitIdx       uint64 // index in the transaction, from 0
	CommitTimestamp string // RFC 3339 in UTC with microseconds; see CommitTime
	XID             uint64
	RecordPKs       []string
	KeyKind         string
	IdempotencyKey  string // equal on each redelivery
	Origin          string
	Unchanged       []string // columns that Postgres did not send
	JSONNull        []string // columns that hold a JSON null
	OldKnown        bool
	Late            bool            // later changes of the key went by before this one
	Annotations     json.RawMessage // of the transaction; nil: none
	Gap             json.RawMessage // of a gap
	Backfill        json.RawMessage // of a read: the backfill that read the row; nil: none
	Raw             json.RawMessage // everything, also what is newer than this client
}

// CommitTime returns when the transaction committed, or the zero time.
func (m *Metadata) CommitTime() time.Time {
	t, err := time.Parse(time.RFC3339Nano, m.CommitTimestamp)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Table returns schema.name.
func (m *Metadata) Table() string { return m.TableSchema + "." + m.TableName }

// ParseChange reads one message of the wire contract. The change shares the memory
// of data, which must not be changed afterwards.
func ParseChange(data []byte) (Change, error) {
	var d Delivery
	s := newScanner(data)
	if err := s.delivery(&d); err != nil {
		return Change{}, fmt.Errorf("read a change: %w", err)
	}
	return d.Change, nil
}

// Batch is what Next gives.
type Batch struct {
	Deliveries []Delivery
	Pending    uint64 // how many changes wait for the consumer
	InFlight   uint64 // how many are handed out and not settled
	Raw        json.RawMessage
}

func parseBatch(body []byte, size int) (Batch, error) {
	b := Batch{Raw: body, Deliveries: make([]Delivery, 0, min(size, len(body)/200))}
	s := newScanner(body)
	err := s.object(func(key string) error {
		switch key {
		case "data":
			return s.array(func() error {
				b.Deliveries = append(b.Deliveries, Delivery{})
				return s.delivery(&b.Deliveries[len(b.Deliveries)-1])
			})
		case "info":
			return s.info(&b)
		}
		_, err := s.raw()
		return err
	})
	return b, err
}

func (s *scanner) info(b *Batch) error {
	return s.object(func(key string) (err error) {
		switch key {
		case "num_pending":
			b.Pending, err = s.uint()
		case "num_ack_pending":
			b.InFlight, err = s.uint()
		default:
			_, err = s.raw()
		}
		return err
	})
}

func (s *scanner) delivery(d *Delivery) error {
	return s.object(func(key string) error { return s.member(d, key) })
}

// member reads a member of a delivery.
func (s *scanner) member(d *Delivery, key string) (err error) {
	switch key {
	case "ack_token":
		d.Token, err = s.str()
	case "attempt":
		var n uint64
		n, err = s.uint()
		d.Attempt = int(n)
	case "action":
		d.Action, err = s.str()
	case "record":
		d.Record, err = s.optional()
	case "changes":
		d.Changes, err = s.optional()
	case "metadata":
		err = s.metadata(&d.Metadata)
	default:
		_, err = s.raw()
	}
	return err
}

func (s *scanner) metadata(m *Metadata) error {
	s.peek()
	start := s.at
	err := s.object(func(key string) (err error) {
		switch key {
		case "database":
			m.Database, err = s.str()
		case "table_schema":
			m.TableSchema, err = s.str()
		case "table_name":
			m.TableName, err = s.str()
		case "seq":
			m.Seq, err = s.uint()
		case "commit_lsn":
			m.CommitLSN, err = s.uint()
		case "commit_idx":
			m.CommitIdx, err = s.uint()
		case "commit_timestamp":
			m.CommitTimestamp, err = s.str()
		case "xid":
			m.XID, err = s.uint()
		case "record_pks":
			m.RecordPKs, err = s.strings()
		case "key_kind":
			m.KeyKind, err = s.str()
		case "idempotency_key":
			m.IdempotencyKey, err = s.str()
		case "origin":
			m.Origin, err = s.str()
		default:
			err = s.rareMetadata(m, key)
		}
		return err
	})
	m.Raw = s.data[start:s.at:s.at]
	return err
}

func (s *scanner) rareMetadata(m *Metadata, key string) (err error) {
	switch key {
	case "unchanged":
		m.Unchanged, err = s.strings()
	case "json_null":
		m.JSONNull, err = s.strings()
	case "old_known":
		m.OldKnown, err = s.bool()
	case "late":
		m.Late, err = s.bool()
	case "transaction_annotations":
		m.Annotations, err = s.optional()
	case "gap":
		m.Gap, err = s.optional()
	case "backfill":
		m.Backfill, err = s.optional()
	default:
		_, err = s.raw()
	}
	return err
}
