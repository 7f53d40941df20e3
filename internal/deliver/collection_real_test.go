package deliver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"lockstep/internal/capture/wal"
	"lockstep/internal/deliver"
	"lockstep/internal/mirror"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/source"
)

// mirrorNode is Postgres with a mirror, its capture and a stream, and deliveries of it.
type mirrorNode struct {
	*real
	t      *testing.T
	url    string
	mirror *mirror.Mirror
}

func newMirrorNode(t *testing.T) *mirrorNode {
	t.Helper()
	n := &mirrorNode{t: t, url: pgtest.Database(t)}
	if err := pgdb.Migrate(t.Context(), n.url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgdb.Open(t.Context(), n.url, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if n.mirror, err = mirror.Open(t.Context(), mirror.Config{Pool: pool, Sync: acme, Name: "acme", Provider: "stripe"}); err != nil {
		t.Fatal(err)
	}
	unlock, err := n.mirror.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
	charge := source.Collection{Name: "charge", Fields: []source.Field{{Name: "id", Type: source.Integer}, {Name: "amount", Type: source.Integer}}}
	if err := n.mirror.Prepare(t.Context(), []source.Collection{{Name: "customer"}, charge}); err != nil {
		t.Fatal(err)
	}
	n.capture()
	return n
}

// capture starts capture of the mirror's tables, and deliveries of what it captures.
func (n *mirrorNode) capture() {
	n.t.Helper()
	pgtest.Exec(n.t, n.url, "CREATE PUBLICATION p FOR TABLES IN SCHEMA stripe", "CREATE PUBLICATION p_inserts WITH (publish = 'insert,truncate')")
	var err error
	if n.real, err = openReal(n.t.Context(), n.t.TempDir()); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = n.server.Close() })
	database, _, _ := strings.Cut(n.url, "?")
	c, err := wal.New(wal.Config{
		Database: "app", URL: n.url, Slot: "s_" + path.Base(database), Publication: "p", Log: n.log, JoinSecret: "secret",
		Logger: slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Error("capture:", err)
		}
	})
	pgtest.Eventually(n.t, 30*time.Second, "capture streams", func() bool { return c.Status().Connected })
	run(n.t, n.broker)
}

func (n *mirrorNode) apply(records ...source.Record) {
	n.t.Helper()
	at := time.Date(2026, 11, 1, 0, 0, 9, 250_000_000, time.UTC)
	if _, err := n.mirror.Apply(n.t.Context(), mirror.Change{Records: records, At: at}); err != nil {
		n.t.Fatal(err)
	}
}

// take takes one change, acks it, and returns its message.
func (n *mirrorNode) take(c *deliver.Consumer) string {
	n.t.Helper()
	d := await(n.t, c, 1)[0]
	ack(n.t, c, d)
	return message(c, d)
}

// The whole way of an API's record: what a sync writes, Postgres logs, capture reads
// and the stream keeps is handed out as the API's object, byte for byte as in _raw.
func TestAMirroredRecordIsDelivered(t *testing.T) {
	t.Parallel()
	n := newMirrorNode(t)
	c, err := n.broker.Put(t.Context(), collections("stripe:*"))
	if err != nil {
		t.Fatal(err)
	}
	created, changed := time.Date(2024, 3, 21, 17, 47, 28, 0, time.UTC), time.Date(2024, 3, 21, 17, 49, 32, 120_000_000, time.UTC)
	for i, data := range []string{
		`{"id":"cus_ü1","name":"✨ \"A\"\n\\u0000","nested":{"_raw":[1.10,12345678901234567890,{}]}, "big":"` + strings.Repeat(`\" }, é`, 20_000) + `"}`,
		`{"id":"cus_ü1","name":"b"}`,
	} {
		n.apply(source.Record{Collection: "customer", ID: "cus_ü1", Version: changed.Add(time.Duration(i) * time.Second), Created: created, Rank: source.RankList, Data: json.RawMessage(data)})
		row := pgtest.Query(t, n.url, "SELECT _raw::text, _id::text FROM stripe.customer")[0]
		want := fmt.Sprintf(`{"record":{"id":%q,"sync_id":%q,"collection_id":"stripe:customer","provider":"stripe","upstream_id":"cus_ü1","data":%s,"deleted":false,`+
			`"inserted_at":"2026-11-01T00:00:09.250000Z","upstream_created_at":"2024-03-21T17:47:28.000000Z","upstream_updated_at":"2024-03-21T17:49:%d.120000Z","updated_idx":%d},"changes":null,"action":%q,`,
			row[1], acme, row[0], 32+i, i+1, []string{"insert", "update"}[i])
		if got := n.take(c); !strings.HasPrefix(got, want) {
			t.Errorf("got  %.3000s\nwant %.3000s…", got, want)
		}
	}
	n.byHand(c)
	n.apply(source.Record{Collection: "customer", ID: "cus_ü1", Version: changed.Add(time.Hour), Deleted: true, Reason: "event"})
	if got := n.take(c); !strings.Contains(got, `"upstream_id":"cus_ü1","data":{"id": "cus_ü1", "name": "by hand"},"deleted":true,`) || !strings.Contains(got, `"action":"delete"`) {
		t.Errorf("delete: %s", got)
	}
	// An id that is a number, and a record without any time.
	n.apply(source.Record{Collection: "charge", ID: "9007199254740993", Data: json.RawMessage(`{"id":9007199254740993,"amount":5}`)})
	if got := n.take(c); !strings.Contains(got, `"collection_id":"stripe:charge","provider":"stripe","upstream_id":"9007199254740993","data":{"id": 9007199254740993, "amount": 5},"deleted":false,"inserted_at":"2026-11-01T00:00:09.250000Z","upstream_created_at":null,"upstream_updated_at":null,`) {
		t.Errorf("charge: %s", got)
	}
}

// byHand changes the row as users may, who own the database.
func (n *mirrorNode) byHand(c *deliver.Consumer) {
	n.t.Helper()
	pgtest.Exec(n.t, n.url, `UPDATE stripe.customer SET _raw = '{"id":"cus_ü1","name":"by hand"}', name = 'by hand'`)
	if got := n.take(c); !strings.Contains(got, `"data":{"id": "cus_ü1", "name": "by hand"},"deleted":false`) || !strings.Contains(got, `"action":"update"`) {
		n.t.Errorf("by hand: %s", got)
	}
	// Large values are not sent with a change that leaves them alone, once the user has
	// given the table another replica identity.
	pgtest.Exec(n.t, n.url, "ALTER TABLE stripe.customer REPLICA IDENTITY DEFAULT",
		`INSERT INTO stripe.customer (id, _id, _synced_at, _rank, _fingerprint, _raw) SELECT 'x', '`+uuid.NewString()+`', now(), 3, '\x00',
			jsonb_build_object('v', string_agg(md5(g::text), '')) FROM generate_series(1, 500) g`)
	if got := n.take(c); !strings.Contains(got, `"upstream_id":"x","data":{"v": "`) {
		n.t.Errorf("large: %s", got)
	}
	pgtest.Exec(n.t, n.url, "UPDATE stripe.customer SET name = 'y' WHERE id = 'x'")
	if got := n.take(c); !strings.Contains(got, `"upstream_id":"x","data":null,"deleted":false`) || !strings.Contains(got, `"unchanged":["_raw"]`) {
		n.t.Errorf("without its large value: %s", got)
	}
	pgtest.Exec(n.t, n.url, "DELETE FROM stripe.customer WHERE id = 'x'", "ALTER TABLE stripe.customer REPLICA IDENTITY FULL")
	if got := n.take(c); !strings.Contains(got, `{"id":null,"sync_id":"`+acme+`","collection_id":"stripe:customer","provider":"stripe","upstream_id":"x","data":null,"deleted":true,"inserted_at":null`) {
		n.t.Errorf("a delete by key: %s", got)
	}
}
