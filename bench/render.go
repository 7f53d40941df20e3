package bench

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// peer is what a bare client does before it sends.
type peer int

const (
	ready   peer = iota // nothing: it sends what lies in memory
	renders             // it makes each message of its row, as a program must that has rows
)

// message returns the body of the row i: the one that lies ready, or one made of the row.
func (p peer) message(i int, lies []byte) ([]byte, error) {
	if p == ready {
		return lies, nil
	}
	return render(i)
}

// rendered is a message as a program writes it that has the row in a struct: the members
// that the node's messages have, by encoding/json.
type rendered struct {
	Record   renderedRow      `json:"record"`
	Changes  any              `json:"changes"`
	Action   string           `json:"action"`
	Metadata renderedMetadata `json:"metadata"`
}

type renderedRow struct {
	ID        int64           `json:"id"`
	Tenant    int32           `json:"tenant"`
	Email     string          `json:"email"`
	Amount    string          `json:"amount"`
	Payload   renderedPayload `json:"payload"`
	Note      string          `json:"note"`
	CreatedAt time.Time       `json:"created_at"`
}

type renderedPayload struct {
	N   int    `json:"n"`
	Pad string `json:"pad"`
}

type renderedMetadata struct {
	Database    string    `json:"database"`
	Schema      string    `json:"table_schema"`
	Table       string    `json:"table_name"`
	Seq         uint64    `json:"seq"`
	LSN         uint64    `json:"commit_lsn"`
	Index       uint32    `json:"commit_idx"`
	At          time.Time `json:"commit_timestamp"`
	XID         uint32    `json:"xid"`
	PKs         []string  `json:"record_pks"`
	KeyKind     string    `json:"key_kind"`
	Key         string    `json:"idempotency_key"`
	Origin      string    `json:"origin"`
	OldKnown    bool      `json:"old_known"`
	Annotations any       `json:"transaction_annotations"`
	Consumer    struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"consumer"`
}

// render makes the message of the row i that rowsOf makes.
func render(i int) ([]byte, error) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 1000*(1+i%999_999), time.UTC)
	m := rendered{
		Record: renderedRow{
			ID: int64(i), Tenant: int32(i % 100), Email: "user" + strconv.Itoa(i) + "@example.com", Amount: fmt.Sprintf("%d.%02d", i%100_000/100, i%100),
			Payload: renderedPayload{i, strings.Repeat("x", 60)}, Note: "note " + strconv.Itoa(i), CreatedAt: at,
		},
		Action: "insert",
		Metadata: renderedMetadata{
			Database: database, Schema: "public", Table: "bench_0", Seq: uint64(i), LSN: uint64(100_000 + i/100), Index: uint32(i % 100), At: at, XID: uint32(700 + i/100),
			PKs: []string{strconv.Itoa(i)}, KeyKind: "primary", Key: "1y2p0ij32e8e7-1-" + strconv.Itoa(i), Origin: "app",
		},
	}
	m.Metadata.Consumer.ID, m.Metadata.Consumer.Name = "0f8fad5b-d9cb-469f-a165-70867728950e", "bare"
	return json.Marshal(m)
}

// renderMany makes the body of a webhook of the rows from first on.
func renderMany(first, rows int) ([]byte, error) {
	if rows == 1 {
		return render(first)
	}
	body := []byte(`{"data":[`)
	for i := range rows {
		if i > 0 {
			body = append(body, ',')
		}
		one, err := render(first + i)
		if err != nil {
			return nil, err
		}
		body = append(body, one...)
	}
	return append(body, `]}`...), nil
}
