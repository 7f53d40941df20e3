package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/mirror"
	"lockstep/source"
)

// wide is a record as Stripe's customers are: about 1 KB, some twenty fields.
func wide(i int) source.Record {
	return record(fmt.Sprintf("cus_%09d", i), 5, fmt.Sprintf(`{"id":"cus_%09d","object":"customer","address":{"city":"Ulm","country":"DE","line1":"Hauptstr. %d","postal_code":"89073"},`+
		`"balance":%d,"created":%d,"currency":"eur","default_source":null,"delinquent":false,"description":"Customer number %d of the bench, with a text of some length",`+
		`"discount":null,"email":"customer%d@example.com","invoice_prefix":"ABC%06d","invoice_settings":{"custom_fields":null,"default_payment_method":null,"footer":null,"rendering_options":null},`+
		`"livemode":false,"metadata":{"order_id":"%d","plan":"enterprise","region":"eu-central-1","note":"%0100d"},"name":"Jane Doe %d","next_invoice_sequence":%d,"phone":"+49731%07d",`+
		`"preferred_locales":["de","en"],"shipping":{"address":{"city":"Ulm","country":"DE"},"name":"Jane","phone":null},"tax_exempt":"none","test_clock":null}`,
		i, i, i%1000, 1700000000+i, i, i, i%1000000, i, i, i, i%50, i%10000000))
}

func wideCollection() source.Collection {
	c := source.Collection{Name: "customer", Fields: []source.Field{{Name: "created", Type: source.Unix}, {Name: "balance", Type: source.Integer},
		{Name: "next_invoice_sequence", Type: source.Integer}, {Name: "delinquent", Type: source.Boolean}, {Name: "livemode", Type: source.Boolean}}}
	for _, name := range []string{"object", "currency", "default_source", "description", "email", "invoice_prefix", "name", "phone", "tax_exempt", "test_clock"} {
		c.Fields = append(c.Fields, source.Field{Name: name, Type: source.Text})
	}
	for _, name := range []string{"address", "discount", "invoice_settings", "metadata", "preferred_locales", "shipping"} {
		c.Fields = append(c.Fields, source.Field{Name: name, Type: source.JSON})
	}
	return c
}

// BenchmarkCopy is the bound of BenchmarkApply: COPY of the same rows into a table of
// the same columns, with a primary key, in one statement.
func BenchmarkCopy(b *testing.B) {
	f := newFixture(b, wideCollection())
	const rows = 20_000
	for at := 0; at < rows; at += 1000 {
		f.apply(mirror.Change{Collection: "customer", Records: wides(at, 1000), At: day(10)})
	}
	conn, err := pgx.Connect(context.Background(), f.url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	var text bytes.Buffer
	if _, err := conn.PgConn().CopyTo(b.Context(), &text, "COPY api.customer TO STDOUT"); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), "CREATE TABLE copied (LIKE api.customer INCLUDING INDEXES)"); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		b.StopTimer()
		if _, err := conn.Exec(b.Context(), "TRUNCATE copied"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := conn.PgConn().CopyFrom(b.Context(), bytes.NewReader(text.Bytes()), "COPY copied FROM STDIN"); err != nil {
			b.Fatal(err)
		}
		n += rows
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

func wides(from, n int) []source.Record {
	page := make([]source.Record, n)
	for i := range page {
		page[i] = wide(from + i)
	}
	return page
}

func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1, 100, 1000, 5000} {
		b.Run(fmt.Sprint("new/page=", size), func(b *testing.B) {
			f := newFixture(b, wideCollection())
			n := 0
			for b.Loop() {
				b.StopTimer()
				page := wides(n, size)
				b.StartTimer()
				f.apply(mirror.Change{Collection: "customer", Records: page, At: day(10)})
				n += size
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
	b.Run("unchanged/page=1000", func(b *testing.B) { benchAgain(b, 0) })
	b.Run("changed/page=1000", func(b *testing.B) { benchAgain(b, 1) })
}

// benchAgain applies pages of records that are there, with a version that grows by step.
func benchAgain(b *testing.B, step int) {
	f := newFixture(b, wideCollection())
	page := wides(0, 1000)
	n, at := 0, 10
	for b.Loop() {
		f.apply(mirror.Change{Collection: "customer", Records: page, At: day(at)})
		for i := range page {
			page[i].Version = day(at)
		}
		n, at = n+len(page), at+step
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkFingerprint(b *testing.B) {
	r := wide(1)
	b.SetBytes(int64(len(r.Data)))
	for b.Loop() {
		if _, err := mirror.Fingerprint(r.Data, []string{"metadata.note"}); err != nil {
			b.Fatal(err)
		}
	}
}
