package stream

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"lockstep"
)

const (
	headerFirst = "Lockstep-First"
	headerCount = "Lockstep-Count"
	headerPart  = "Lockstep-Part"
	headerTime  = "Lockstep-Time"

	headerStreamSeq   = "Nats-Sequence"
	headerSubject     = "Nats-Subject"
	headerExpectedEnd = "Nats-Expected-Last-Sequence"
)

// stored is one message of a log: a batch or a part of one.
type stored struct {
	seq         uint64 // the message's number in JetStream
	ours        bool   // the headers are those of a batch; the fields below are set
	first       uint64
	count       uint64
	part, parts uint64 // 1 and 1 for a whole batch
	clock       int64
	data        []byte
}

// start is the number of the message that holds the batch's first part, end of
// the one that holds its last.
func (m *stored) start() uint64 { return m.seq - (m.part - 1) }
func (m *stored) end() uint64   { return m.seq + (m.parts - m.part) }

func newStored(seq uint64, h nats.Header, data []byte) *stored {
	m := &stored{seq: seq, part: 1, parts: 1, data: data}
	var errs [4]error
	m.first, errs[0] = strconv.ParseUint(h.Get(headerFirst), 10, 64)
	m.count, errs[1] = strconv.ParseUint(h.Get(headerCount), 10, 64)
	m.clock, errs[2] = strconv.ParseInt(h.Get(headerTime), 10, 64)
	if part := h.Get(headerPart); part != "" {
		i, n, _ := strings.Cut(part, "/")
		m.part, errs[3] = strconv.ParseUint(i, 10, 64)
		if errs[3] == nil {
			m.parts, errs[3] = strconv.ParseUint(n, 10, 64)
		}
	}
	m.ours = errs == [4]error{} && m.first > 0 && m.part >= 1 && m.part <= m.parts && m.part <= seq
	return m
}

func (m *stored) headers(expect uint64) nats.Header {
	h := nats.Header{
		headerFirst:       {strconv.FormatUint(m.first, 10)},
		headerCount:       {strconv.FormatUint(m.count, 10)},
		headerTime:        {strconv.FormatInt(m.clock, 10)},
		headerExpectedEnd: {strconv.FormatUint(expect, 10)},
	}
	if m.parts > 1 {
		h[headerPart] = []string{strconv.FormatUint(m.part, 10) + "/" + strconv.FormatUint(m.parts, 10)}
	}
	return h
}

// assembly puts batches together from messages that are given in order.
type assembly struct {
	parts []*stored
}

// add takes the next message and returns the batch that it completes, or nil.
// Parts that are not followed by the rest of their batch are dropped: a crash left
// them, or retention took the ones before. A damaged batch gives a CorruptError.
func (a *assembly) add(database string, m *stored) (*entry, error) {
	if !m.ours {
		a.parts = nil
		return nil, nil
	}
	if m.part == 1 {
		a.parts = nil
	} else if !a.goesOn(m) {
		a.parts = nil
		return nil, nil
	}
	a.parts = append(a.parts, m)
	if m.part < m.parts {
		return nil, nil
	}
	data := m.data
	if m.parts > 1 {
		pieces := make([][]byte, len(a.parts))
		for i, p := range a.parts {
			pieces[i] = p.data
		}
		data = bytes.Join(pieces, nil)
	}
	a.parts = nil
	batch, err := lockstep.ParseBatch(data)
	if err == nil && (batch.First != m.first || uint64(batch.Len()) != m.count) {
		err = fmt.Errorf("headers and batch differ at message %d: %w", m.seq, lockstep.ErrCorrupt)
	}
	if err != nil {
		return nil, &CorruptError{Database: database, First: m.first, Last: m.first + max(m.count, 1) - 1, Err: err}
	}
	batch.StreamSeq = m.start()
	return &entry{batch: batch, start: m.start(), end: m.end(), clock: m.clock}, nil
}

func (a *assembly) goesOn(m *stored) bool {
	if len(a.parts) == 0 {
		return false
	}
	last := a.parts[len(a.parts)-1]
	return last.part+1 == m.part && last.seq+1 == m.seq && last.first == m.first && last.parts == m.parts
}
