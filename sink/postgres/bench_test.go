package postgres

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sink"
)

func number(i int) string { return strconv.Itoa(i) }

const benchDDL = `CREATE TABLE orders (id bigint PRIMARY KEY, tenant int, email text, amount numeric(12,2), payload jsonb, note text, created_at timestamptz)`

func benchRecord(id int) string {
	return fmt.Sprintf(`{"id":%d,"tenant":%d,"email":"user%d@example.com","amount":"%d.50","payload":{"a":[1,2,3],"b":"some text that is a little longer"},`+
		`"note":"a note of no particular meaning","created_at":"2026-11-21T10:00:00.123456Z"}`, id, id%100, id, id%1000)
}

const benchKeys = 20_000

// BenchmarkWrite writes rows of about 200 B, half of the keys twice and more. Beside it
// the same rows with pgx alone: one upsert for each in a pgx.Batch, as one writes it by
// hand, and one statement with unnest, which is the limit.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		for _, guard := range guards() {
			b.Run(fmt.Sprintf("sink, guard %s, batch %d", guard, size), func(b *testing.B) {
				url := pgtest.Database(b)
				pgtest.Exec(b, url, benchDDL)
				p := open(b, Config{URL: url, Guard: guard})
				seq := 0
				messages := make([]sink.Message, size)
				for b.Loop() {
					for i := range messages {
						messages[i] = change(uint64(seq+1), lockstep.Insert, benchRecord(seq%benchKeys))
						seq++
					}
					write(b, p, messages...)
				}
				report(b, size)
			})
		}
		b.Run(fmt.Sprintf("pgx batch, batch %d", size), func(b *testing.B) { benchBatch(b, size) })
		b.Run(fmt.Sprintf("pgx unnest, batch %d", size), func(b *testing.B) { benchUnnest(b, size) })
	}
}

func report(b *testing.B, size int) {
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "changes/s")
}

// bare is a row that needs no decoding: the limit knows its columns.
func bare(id int) []any {
	return []any{int64(id), int32(id % 100), fmt.Sprintf("user%d@example.com", id), fmt.Sprintf("%d.50", id%1000),
		`{"a":[1,2,3],"b":"some text that is a little longer"}`, "a note of no particular meaning", "2026-11-21T10:00:00.123456Z"}
}

const benchUpsert = ` ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, email = excluded.email, amount = excluded.amount,
	payload = excluded.payload, note = excluded.note, created_at = excluded.created_at`

func client(b *testing.B) *pgx.Conn {
	b.Helper()
	url := pgtest.Database(b)
	pgtest.Exec(b, url, benchDDL)
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func benchBatch(b *testing.B, size int) {
	conn := client(b)
	seq := 0
	for b.Loop() {
		var batch pgx.Batch
		for range size {
			_ = change(uint64(seq+1), lockstep.Insert, benchRecord(seq%benchKeys))
			row := bare(seq % benchKeys)
			batch.Queue(`INSERT INTO orders VALUES ($1, $2, $3, $4::text::numeric, $5, $6, $7::text::timestamptz)`+benchUpsert, row...)
			seq++
		}
		if err := conn.SendBatch(b.Context(), &batch).Close(); err != nil {
			b.Fatal(err)
		}
	}
	report(b, size)
}

func benchUnnest(b *testing.B, size int) {
	conn := client(b)
	seq := 0
	for b.Loop() {
		ids, tenants := make([]int64, size), make([]int32, size)
		texts := make([][]string, 5)
		for i := range size {
			_ = change(uint64(seq+1), lockstep.Insert, benchRecord(seq%benchKeys))
			row := bare(seq % benchKeys)
			ids[i], tenants[i] = row[0].(int64), row[1].(int32)
			for n := range texts {
				texts[n] = append(texts[n], row[n+2].(string))
			}
			seq++
		}
		_, err := conn.Exec(b.Context(), `INSERT INTO orders SELECT a, b, c, d::numeric, e::jsonb, f, g::timestamptz
			FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS i(a, b, c, d, e, f, g)`+benchUpsert,
			ids, tenants, texts[0], texts[1], texts[2], texts[3], texts[4])
		if err != nil {
			b.Fatal(err)
		}
	}
	report(b, size)
}
