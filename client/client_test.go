package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/client"
)

// serve starts a server with one handler and returns a client for it.
func serve(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return connect(t, server.URL)
}

func connect(t *testing.T, address string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Server: address, Token: "ls_test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func refuse(w http.ResponseWriter, status int, more string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"about:blank","title":%q,"status":%d,"detail":"told so"%s}`, http.StatusText(status), status, more)
}

func TestNewRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"localhost:7300", "ftp://x", "http://", "::"} {
		if _, err := client.New(client.Config{Server: address}); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

func TestRequestsCarryTokenAndEscapedNames(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer ls_test" {
			t.Errorf("Authorization is %q", got)
		}
		if r.URL.EscapedPath() != "/v1/consumers/a%2Fb%3Fc%20d" {
			t.Errorf("path is %s", r.URL.EscapedPath())
		}
		_, _ = io.WriteString(w, `{"id":"1","name":"a/b?c d","max_in_flight":5,"order_by":["x"],"new_field":12345678901234567890}`)
	})
	got, err := c.Consumer(t.Context(), "a/b?c d")
	if err != nil || got.Name != "a/b?c d" || got.MaxInFlight != 5 || string(got.OrderBy) != `["x"]` || !strings.Contains(string(got.Raw), "12345678901234567890") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestProblemsAreErrorsOfTheRootPackage(t *testing.T) {
	t.Parallel()
	for status, kind := range map[int]error{
		400: lockstep.ErrInvalid, 422: lockstep.ErrInvalid, 413: lockstep.ErrInvalid, 404: lockstep.ErrNotFound, 410: lockstep.ErrNotFound,
		409: lockstep.ErrConflict, 503: lockstep.ErrUnavailable, 429: lockstep.ErrUnavailable, 401: nil, 500: nil,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, status, `,"errors":[{"message":"too short","location":"body.ack_wait"}],"stale":["t1","t2"]`)
			})
			err := c.Nack(t.Context(), "c", client.Nack{}, "t1")
			var p *client.Problem
			if !errors.As(err, &p) || p.Status != status || len(p.Stale) != 2 {
				t.Fatalf("got %#v", err)
			}
			if kind != nil && !errors.Is(err, kind) {
				t.Errorf("%v is not %v", err, kind)
			}
			if want := fmt.Sprintf("told so; body.ack_wait: too short (stale: 2) (HTTP %d)", status); err.Error() != want {
				t.Errorf("got %q, want %q", err, want)
			}
		})
	}
}

func TestAnAnswerThatIsNoProblemDocument(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<html>nginx</html>")
	})
	if err := c.DeleteConsumer(t.Context(), "c"); !errors.Is(err, lockstep.ErrNotFound) || strings.Contains(err.Error(), "html") {
		t.Errorf("got %v", err)
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(nil)
	server.Close()
	_, err := connect(t, server.URL).Consumers(t.Context())
	if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("got %v", err)
	}
}

// Only what may be done twice is repeated: an ack and a look are, next and nack are
// not.
func TestOnlyRepeatableCallsAreRepeated(t *testing.T) {
	t.Parallel()
	calls := map[string]struct {
		do   func(context.Context, *client.Client) error
		want int32
	}{
		"list":   {func(ctx context.Context, c *client.Client) error { _, err := c.Consumers(ctx); return err }, 3},
		"ack":    {func(ctx context.Context, c *client.Client) error { return c.Ack(ctx, "c", "t") }, 3},
		"extend": {func(ctx context.Context, c *client.Client) error { return c.Extend(ctx, "c", time.Minute, "t") }, 3},
		"seek":   {func(ctx context.Context, c *client.Client) error { return c.Seek(ctx, "c", "now") }, 3},
		"next":   {func(ctx context.Context, c *client.Client) error { _, err := c.Next(ctx, "c", 1, 0); return err }, 1},
		"nack":   {func(ctx context.Context, c *client.Client) error { return c.Nack(ctx, "c", client.Nack{}, "t") }, 1},
		"create": {func(ctx context.Context, c *client.Client) error {
			_, err := c.CreateConsumer(ctx, client.Definition{Name: "c"})
			return err
		}, 1},
		"retry": {func(ctx context.Context, c *client.Client) error { return c.RetryDead(ctx, "c", 7) }, 1},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if n.Add(1) <= 2 {
					refuse(w, http.StatusServiceUnavailable, "")
					return
				}
				_, _ = io.WriteString(w, `{"data":[]}`)
			})
			err := call.do(t.Context(), c)
			if n.Load() != call.want {
				t.Errorf("called %d times, want %d", n.Load(), call.want)
			}
			if (err == nil) != (call.want == 3) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRepeatingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		refuse(w, http.StatusServiceUnavailable, "")
		cancel()
	})
	if _, err := c.Consumers(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestListsAreReadToTheirEnd(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			_, _ = io.WriteString(w, `{"data":[{"name":"a"},{"name":"b"}],"next_cursor":"x"}`)
			return
		}
		_, _ = io.WriteString(w, `{"data":[{"name":"c"}],"next_cursor":null}`)
	})
	list, err := c.Tokens(t.Context())
	if err != nil || len(list) != 3 || list[2].Name != "c" {
		t.Errorf("got %v, %v", list, err)
	}
}

const answer = ` { "data" : [ {"ack_token":"t\u0041","attempt":2,"record":{"id":7,"amount":"12.50","n":123456789012345678901234567890, "s":"}\"]"},
 "changes":null,"action":"update","metadata":{"database":"app","table_schema":"public","table_name":"or\"ders","seq":42,"commit_lsn":24023128,
 "commit_idx":3,"commit_timestamp":"2026-11-21T10:00:00.123456Z","xid":733,"record_pks":["7","x"],"key_kind":"primary_key","idempotency_key":"k",
 "origin":"user","unchanged":["body"],"old_known":false,"transaction_annotations":{"a":[1]},"json_null":null,"late":true,"gap":null,"consumer":{"id":"i","name":"n"},"newer":[{}]}},
 {"ack_token":"u","attempt":1,"record":null,"action":"truncate","metadata":{}}], "info":{"num_pending":18446744073709551615,"num_ack_pending":2,"x":{}}, "z":-1.5e3 }`

func TestNextReadsTheMessage(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.RawQuery; q != "batch_size=2&wait_for=1500" {
			t.Errorf("query is %s", q)
		}
		_, _ = io.WriteString(w, answer)
	})
	b, err := c.Next(t.Context(), "c", 2, 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	want := client.Delivery{Token: "tA", Attempt: 2, Change: client.Change{
		Action: "update",
		Record: json.RawMessage(`{"id":7,"amount":"12.50","n":123456789012345678901234567890, "s":"}\"]"}`),
		Metadata: client.Metadata{
			Database: "app", TableSchema: "public", TableName: `or"ders`, Seq: 42, CommitLSN: 24023128, CommitIdx: 3,
			CommitTimestamp: "2026-11-21T10:00:00.123456Z", XID: 733, RecordPKs: []string{"7", "x"}, KeyKind: "primary_key", IdempotencyKey: "k",
			Origin: "user", Unchanged: []string{"body"}, Late: true, Annotations: json.RawMessage(`{"a":[1]}`),
		},
	}}
	if len(b.Deliveries) != 2 || b.Pending != 18446744073709551615 || b.InFlight != 2 {
		t.Fatalf("got %+v", b)
	}
	got := b.Deliveries[0]
	if !json.Valid(got.Metadata.Raw) || !strings.Contains(string(got.Metadata.Raw), `"newer"`) {
		t.Errorf("raw metadata is %s", got.Metadata.Raw)
	}
	got.Metadata.Raw = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if at := got.Metadata.CommitTime(); !at.Equal(time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)) {
		t.Errorf("commit time is %s", at)
	}
	if second := b.Deliveries[1]; second.Token != "u" || second.Record != nil || second.Action != "truncate" {
		t.Errorf("got %+v", second)
	}
}

func TestNextWithNothingThere(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"data":[]}`) })
	if b, err := c.Next(t.Context(), "c", 1, 0); err != nil || len(b.Deliveries) != 0 {
		t.Errorf("got %+v, %v", b, err)
	}
}

func TestAnAnswerThatIsNotTheContract(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`[]`, `{"data":[{]}`, `{"data":[{"attempt":"x"}]}`, ``, `{"data":[{"metadata":{"seq":-1}}]}`, `{"data":`, `<html>`} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		if b, err := c.Next(t.Context(), "c", 1, 0); err == nil {
			t.Errorf("%q gave %+v", body, b)
		}
	}
}

// FuzzParseChange holds the scanner against encoding/json: what that accepts must
// give the same fields, and nothing may panic.
func FuzzParseChange(f *testing.F) {
	f.Add([]byte(answer))
	f.Add([]byte(`{"record":{"a":[1,"x\\"]},"changes":{"b":null},"action":"insert","metadata":{"seq":1,"table_name":"é\ud83d\ude00","record_pks":[]}}`))
	f.Add([]byte(`{"record":"\`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := client.ParseChange(data)
		var want struct {
			Record   json.RawMessage `json:"record"`
			Action   string          `json:"action"`
			Metadata struct {
				Seq   uint64   `json:"seq"`
				Table string   `json:"table_name"`
				PKs   []string `json:"record_pks"`
			} `json:"metadata"`
		}
		if !json.Valid(data) || repeatsKeys(data) || json.Unmarshal(data, &want) != nil || err != nil {
			return
		}
		if string(want.Record) == "null" {
			want.Record = nil
		}
		if string(got.Record) != string(want.Record) || got.Action != want.Action || got.Metadata.Seq != want.Metadata.Seq ||
			strings.ToValidUTF8(got.Metadata.TableName, "\uFFFD") != want.Metadata.Table || len(got.Metadata.RecordPKs) != len(want.Metadata.PKs) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// repeatsKeys reports whether a name that the test looks at is there twice, or in
// another case, which encoding/json merges in its own way.
func repeatsKeys(data []byte) bool {
	text := strings.ToLower(string(data))
	for _, name := range []string{"record", "action", "metadata", "seq", "table_name", "record_pks"} {
		if strings.Count(text, `"`+name+`"`) > 1 || strings.Count(string(data), name) != strings.Count(text, name) || strings.Contains(text, `\u`) {
			return true
		}
	}
	return false
}

func BenchmarkNext(b *testing.B) {
	row := strings.Repeat("x", 800)
	var body strings.Builder
	body.WriteString(`{"data":[`)
	for i := range 100 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"ack_token":"tok%d","attempt":1,"record":{"id":%d,"body":%q},"changes":null,"action":"insert","metadata":{"database":"app","table_schema":"public","table_name":"orders","seq":%d,"commit_lsn":1,"commit_idx":0,"commit_timestamp":"2026-11-21T10:00:00.123456Z","xid":1,"record_pks":["%d"],"key_kind":"primary_key","idempotency_key":"k","origin":"user","old_known":true,"transaction_annotations":null}}`, i, i, row, i, i)
	}
	body.WriteString(`],"info":{"num_pending":0,"num_ack_pending":100}}`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body.String()) }))
	defer server.Close()
	c, err := client.New(client.Config{Server: server.URL})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if batch, err := c.Next(b.Context(), "c", 100, 0); err != nil || len(batch.Deliveries) != 100 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "changes/s")
}
