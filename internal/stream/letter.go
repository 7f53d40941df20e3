package stream

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"lockstep"
)

// Letter is a change that a consumer could not take.
type Letter struct {
	Seq      uint64
	Database string
	Reason   string
	State    string // parked | blocked | retrying
	Attempts int
	At       time.Time
	Table    string
	PKs      json.RawMessage
	Message  json.RawMessage // as delivered, without consumer and token; kept byte for byte
	// Batch is nil or a sealed batch of this one change, so that a retry does not
	// need the log, from which retention may have removed it.
	Batch []byte
	// Key tells the letters of one key from others, see [Dead.Find]; 0: unknown. Its upper
	// half says how it was made, the lower one is the key.
	Key uint64
}

// letterHead is the part of a letter that is stored as JSON. The other parts follow
// as they are: encoding/json would rewrite their spaces and escapes.
type letterHead struct {
	Seq      uint64    `json:"seq"`
	Database string    `json:"database"`
	Reason   string    `json:"reason"`
	State    string    `json:"state"`
	Attempts int       `json:"attempts"`
	At       time.Time `json:"at"`
	Table    string    `json:"table"`
}

// encodeLetter writes head, pks, message and batch, each led by its length.
func encodeLetter(l Letter) ([]byte, error) {
	head, err := json.Marshal(letterHead{l.Seq, l.Database, l.Reason, l.State, l.Attempts, l.At, l.Table})
	if err != nil {
		return nil, fmt.Errorf("encode letter: %w", err)
	}
	data := make([]byte, 0, len(head)+len(l.PKs)+len(l.Message)+len(l.Batch)+4*binary.MaxVarintLen64)
	for _, section := range [][]byte{head, l.PKs, l.Message, l.Batch} {
		data = binary.AppendUvarint(data, uint64(len(section)))
		data = append(data, section...)
	}
	return data, nil
}

func decodeLetter(data []byte) (Letter, error) {
	var sections [4][]byte
	for i := range sections {
		size, n := binary.Uvarint(data)
		if n <= 0 || size > uint64(len(data)-n) {
			return Letter{}, fmt.Errorf("letter is cut off: %w", lockstep.ErrCorrupt)
		}
		if size > 0 {
			sections[i] = data[n : n+int(size) : n+int(size)]
		}
		data = data[n+int(size):]
	}
	var h letterHead
	if err := json.Unmarshal(sections[0], &h); err != nil {
		return Letter{}, fmt.Errorf("letter is damaged (%w): %w", err, lockstep.ErrCorrupt)
	}
	return Letter{
		Seq: h.Seq, Database: h.Database, Reason: h.Reason, State: h.State, Attempts: h.Attempts, At: h.At, Table: h.Table,
		PKs: sections[1], Message: sections[2], Batch: sections[3],
	}, nil
}
