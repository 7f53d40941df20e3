package redis

import (
	"fmt"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"lockstep/sink"
)

// BenchmarkWrite appends entries of about 500 B to a stream, each of another key. Beside
// it the client library's pipeline of XADD alone, which is the limit: it writes no seq.
// With LOCKSTEP_REDIS set it runs against a real server; miniredis interprets Lua in Go.
func BenchmarkWrite(b *testing.B) {
	body := []byte(`{"record":{"note":"` + strings.Repeat("0123456789", 40) + `"},"action":"update","metadata":{"seq":1}}`)
	const size = 1000
	for _, mode := range []Mode{Stream, String} {
		for _, guard := range []Guard{GuardSeq, GuardNone} {
			b.Run("sink, "+string(mode)+", guard "+string(guard), func(b *testing.B) {
				r := newServer(b, 9).open(b, Config{Mode: mode, MaxLen: 100_000, Value: Message, Guard: guard})
				messages := make([]sink.Message, size)
				seq := uint64(0)
				for b.Loop() {
					for i := range messages {
						seq++
						messages[i] = change(seq, fmt.Sprint(seq%50_000))
						messages[i].Body = body
					}
					write(b, r, messages...)
				}
				report(b, size)
			})
		}
		b.Run("go-redis, "+string(mode), func(b *testing.B) {
			s := newServer(b, 9)
			seq := uint64(0)
			for b.Loop() {
				p := s.client.Pipeline()
				for range size {
					seq++
					m := change(seq, fmt.Sprint(seq%50_000))
					if mode == String {
						p.Set(b.Context(), "app:public.orders:"+fmt.Sprint(seq%50_000), body, 0)
						continue
					}
					p.XAdd(b.Context(), &goredis.XAddArgs{Stream: "s", MaxLen: 100_000, Approx: true, Values: []any{
						"id", m.IdempotencyKey, "seq", m.Seq, "database", m.Database, "schema", m.Schema, "table", m.Table,
						"action", m.Action.String(), "pks", string(m.PKs), "at", m.CommitTime.String(), "message", body,
					}})
				}
				if _, err := p.Exec(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			report(b, size)
		})
	}
}

func report(b *testing.B, size int) {
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "changes/s")
}
