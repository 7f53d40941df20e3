package realtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/realtime"
)

func TestAChangeIsSentWithIDsColumnsAndRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	response := c.join("realtime:changes", `{"postgres_changes":[{"event":"*","schema":"public","table":"orders","filter":"amount=gt.100"},{"event":"INSERT","schema":"public","table":"orders"}]}`)
	ids := struct {
		Changes []map[string]any `json:"postgres_changes"`
	}{}
	if err := json.Unmarshal([]byte(response), &ids); err != nil {
		t.Fatal(err)
	}
	first, second := ids.Changes[0], ids.Changes[1]
	if first["filter"] != "amount=gt.100" || first["event"] != "*" || second["event"] != "INSERT" || second["filter"] != nil || first["id"] == second["id"] {
		t.Errorf("response %s: want the entries as they were sent, in their order", response)
	}
	c.expect("system")
	seq := r.log.add(t, insert(7, `,"amount":"100.5","status":"open"`))
	got := c.expect("postgres_changes")
	want := fmt.Sprintf(`{"ids":[%.0f,%.0f],"data":{"schema":"public","table":"orders","commit_timestamp":"2026-11-21T10:00:00.123Z","type":"INSERT",`+
		`"columns":[{"name":"id","type":"int8"},{"name":"amount","type":"numeric"},{"name":"status","type":"text"}],`+
		`"record":{"id":7,"amount":"100.5","status":"open"},"errors":null,"sequence":%d}}`, first["id"], second["id"], seq)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.log.add(t, insert(8, `,"amount":"100"`))
	if got := c.change(); len(got.IDs) != 1 || float64(got.IDs[0]) != second["id"] {
		t.Errorf("ids %v; want those of the second entry only", got.IDs)
	}
}

func TestOldRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	c.follow(everything)
	for _, tc := range []struct {
		row         row
		record, old string
	}{
		{row{action: lockstep.Update, record: `{"id":1,"amount":"2","status":"b"}`, changes: `{"amount":"1"}`, known: true}, `{"id":1,"amount":"2","status":"b"}`, `{"id":1,"amount":"1","status":"b"}`},
		{row{action: lockstep.Update, record: `{"id":1,"amount":"2"}`, known: true}, `{"id":1,"amount":"2"}`, `{"id":1,"amount":"2"}`},
		{row{action: lockstep.Update, record: `{"id":1,"amount":"2"}`}, `{"id":1,"amount":"2"}`, `{"id":1}`},
		{row{action: lockstep.Delete, record: `{"id":1,"amount":"2"}`, known: true}, ``, `{"id":1,"amount":"2"}`},
		{row{action: lockstep.Delete, record: `{"id":1}`}, ``, `{"id":1}`},
	} {
		r.log.add(t, tc.row)
		got := c.change()
		if string(got.Data.Record) != tc.record || string(got.Data.OldRecord) != tc.old || got.Data.Type != strings.ToUpper(tc.row.action.String()) {
			t.Errorf("%+v: %s, record %s, old %s", tc.row, got.Data.Type, got.Data.Record, got.Data.OldRecord)
		}
	}
}

func TestWhatIsNotSent(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	c.follow(everything)
	r.log.add(t,
		row{action: lockstep.Truncate}, row{action: lockstep.Read, record: `{"id":1}`}, row{record: `{"id":2}`, only: "some consumer"},
		row{table: "public.others", record: `{"id":3}`}, row{table: "private.orders", record: `{"id":4}`}, insert(5, ""),
	)
	if got := c.change(); string(got.Data.Record) != `{"id":5}` {
		t.Errorf("got %+v; want the last one only", got)
	}
}

func TestWildcardsAndEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	ids := c.follow(
		`{"event":"*","schema":"*"}`, `{"event":"UPDATE","schema":"public"}`, `{"event":"delete","schema":"public","table":"*"}`,
		`{"event":"*","table":"orders"}`, `{"event":"INSERT","schema":"other","table":"*"}`,
	)
	for _, tc := range []struct {
		row  row
		want []int
	}{
		{row{record: `{"id":1}`}, []int{0, 3}},
		{row{action: lockstep.Update, record: `{"id":1}`}, []int{0, 1, 3}},
		{row{action: lockstep.Delete, record: `{"id":1}`}, []int{0, 2, 3}},
		{row{table: "other.things", record: `{"id":1}`}, []int{0, 4}},
		{row{table: "public.things", action: lockstep.Update, record: `{"id":1}`}, []int{0, 1}},
	} {
		r.log.add(t, tc.row)
		var want []uint32
		for _, i := range tc.want {
			want = append(want, ids[i])
		}
		if got := c.change(); !slices.Equal(got.IDs, want) {
			t.Errorf("%+v: ids %v; want %v", tc.row, got.IDs, want)
		}
	}
}

func TestSelectedColumnsAndTheKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	ids := c.follow(
		`{"event":"*","schema":"public","table":"orders","select":["status"]}`, everything,
		`{"event":"UPDATE","schema":"public","table":"orders","select":["status"]}`,
	)
	r.log.add(t, row{action: lockstep.Update, record: `{"id":1,"amount":"2","status":"b"}`, changes: `{"status":"a","amount":"1"}`, known: true})
	narrow, wide := c.change(), c.change()
	if !slices.Equal(narrow.IDs, []uint32{ids[0], ids[2]}) || !slices.Equal(wide.IDs, []uint32{ids[1]}) {
		t.Errorf("ids %v and %v of %v: want one message for each choice of columns", narrow.IDs, wide.IDs, ids)
	}
	if string(narrow.Data.Record) != `{"id":1,"status":"b"}` || string(narrow.Data.OldRecord) != `{"id":1,"status":"a"}` ||
		string(narrow.Data.Columns) != `[{"name":"id","type":"int8"},{"name":"status","type":"text"}]` {
		t.Errorf("got %s, old %s, columns %s", narrow.Data.Record, narrow.Data.OldRecord, narrow.Data.Columns)
	}
}

func TestARecordThatIsTooLargeKeepsItsSmallColumns(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) { c.Limits.RecordBytes = 1000 })
	c := r.connect()
	c.follow(everything)
	r.log.add(t, insert(1, `,"body":"`+strings.Repeat("x", 2000)+`","status":"open"`))
	got := c.change()
	if string(got.Data.Record) != `{"id":1,"status":"open"}` || !slices.Equal(got.Data.Errors, []string{"Error 413: Payload Too Large"}) {
		t.Errorf("got %s, errors %v", got.Data.Record, got.Data.Errors)
	}
}

func TestFiltersAreLookedUpAndTried(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	filters := []string{
		"customer=eq.7", "customer=eq.8", "customer=in.(7,9)", "customer=not.eq.7", "amount=eq.1.50", "amount=gt.1,customer=eq.7", "amount=gt.2,customer=eq.7",
		"status=like.op%", "status=is.null", "body=eq.x", "body=is.null", "id=gte.9007199254740993", "id=gt.9007199254740993",
	}
	var entries []string
	for _, f := range filters {
		entries = append(entries, `{"event":"*","schema":"public","table":"orders","filter":"`+f+`"}`)
	}
	ids := c.follow(entries...)
	for _, tc := range []struct {
		row  row
		want []string
	}{
		{row{record: `{"id":9007199254740993,"customer":7,"amount":"1.5","status":"open"}`}, []string{filters[0], filters[2], filters[4], filters[5], filters[7], filters[11]}},
		{row{action: lockstep.Delete, record: `{"id":1,"customer":9,"status":null}`}, []string{filters[2], filters[3], filters[8]}},
		{row{record: `{"id":1,"body":"x","customer":null}`}, []string{filters[9]}},
	} {
		r.log.add(t, tc.row)
		got := c.change()
		var met []string
		for i, id := range ids {
			if slices.Contains(got.IDs, id) {
				met = append(met, filters[i])
			}
		}
		if !slices.Equal(met, tc.want) {
			t.Errorf("%s: %v; want %v", tc.row.record, met, tc.want)
		}
	}
}

func TestABadEntryIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for entry, want := range map[string]string{
		`{"event":"*","schema":"public","table":"orders","filter":"id=foo.1"}`:  "Error parsing `filter` params: [\"foo\", \"1\"]",
		`{"event":"*","schema":"public","table":"orders","filter":"nope=eq.1"}`: "invalid column for filter nope",
		`{"event":"*","schema":"public","table":"orders","filter":"id=eq.x"}`:   "not an integer",
		`{"event":"*","schema":"public","table":"orders","filter":"id=eq.1,"}`:  "empty segments",
		`{"event":"*","schema":"public","table":"orders","filter":7}`:           "texts",
		`{"event":"*","schema":"public","table":"missing"}`:                     "no table public.missing",
		`{"event":"*"}`: "No subscription params",
		`{"event":"*","schema":"public","filter":"id=eq.1"}`:                   "No subscription params",
		`{"event":"*","schema":"public","table":"orders","select":["nope"]}`:   "invalid column for select nope",
		`{"event":"*","schema":"public","table":"orders","select":"id"}`:       "Error parsing `select`",
		`{"event":"*","schema":"public","table":"*","select":["id"]}`:          "not supported for wildcard",
		`{"event":"*","schema":"public","table":"orders","since":"yesterday"}`: "since is the sequence",
		`{"event":"*","schema":"*","table":"*","filter":"id=match.("}`:         "invalid regular expression",
	} {
		c := r.connect()
		c.join("realtime:changes", `{"postgres_changes":[`+everything+`,`+entry+`]}`)
		system := c.expect("system")
		var told struct{ Extension, Status, Message, Channel string }
		if err := json.Unmarshal([]byte(system), &told); err != nil || told.Extension != "postgres_changes" || told.Status != "error" || told.Channel != "changes" || !strings.Contains(told.Message, want) {
			t.Errorf("%s: %s; want %s", entry, system, want)
		}
		// The channel stands, for broadcasts.
		c.push("realtime:changes", "phx_leave", "{}")
		c.answer("ok")
		c.expect("phx_close")
		c.ref = 0
		c.push("realtime:changes", "phx_join", `{"config":{"postgres_changes":[`+entry+`],"postgres_changes_options":{"wait":true}}}`)
		var refused struct{ Reason string }
		if reason := c.answer("error"); json.Unmarshal([]byte(reason), &refused) != nil || !strings.Contains(refused.Reason, want) {
			t.Errorf("%s: %s; want a refusal when the client waits for it", entry, reason)
		}
	}
}

func TestNothingWrittenAfterTheJoinIsMissed(t *testing.T) {
	t.Parallel()
	// Moving answers with an old place, as it may: the first changes are not asked for.
	const before = 3
	release := make(chan struct{})
	r := newRig(t, func(c *realtime.Config) {
		c.Moving = func(ctx context.Context, _ string) (uint64, error) {
			select {
			case <-release:
				return before, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	})
	for i := range before {
		r.log.add(t, insert(i+1, ""))
	}
	other := r.connect()
	done := make(chan struct{})
	go func() {
		defer close(done)
		other.join("realtime:x", `{"postgres_changes":[`+everything+`]}`)
	}()
	c := r.connect()
	c.push("realtime:changes", "phx_join", `{"config":{"presence":{"enabled":false},"postgres_changes":[`+everything+`]}}`)
	c.push("phoenix", "heartbeat", "{}")
	if m := c.read(); m.topic != "phoenix" {
		t.Fatalf("got %s; want the heartbeat's answer first: capture has not answered", m.raw)
	}
	r.log.add(t, insert(before+1, ""))
	close(release)
	if m := c.read(); m.event != "phx_reply" || m.ref != "1" {
		t.Fatalf("got %s", m.raw)
	}
	c.expect("system")
	r.log.add(t, insert(before+2, ""))
	for _, want := range []uint64{before + 1, before + 2} {
		if got := c.change(); got.Data.Sequence != want {
			t.Errorf("sequence %d; want %d", got.Data.Sequence, want)
		}
	}
	<-done
}

func TestAJoinIsRefusedWhenCaptureDoesNotRun(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *realtime.Config) {
		c.Moving = func(context.Context, string) (uint64, error) { return 0, errors.New("secret detail") }
	})
	c := r.connect()
	c.push("realtime:changes", "phx_join", `{"config":{"postgres_changes":[`+everything+`]}}`)
	if reason := c.answer("error"); !strings.Contains(reason, "UnableToConnectToProject") || strings.Contains(reason, "secret") {
		t.Errorf("reason %s", reason)
	}
	// Broadcasts need no capture.
	c.join("realtime:room", `{}`)
}

// TestEveryJoinGetsAllFromItsPlaceOnInOrder has sockets come and go while changes are
// written.
func TestEveryJoinGetsAllFromItsPlaceOnInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	var joins sync.WaitGroup
	for n := range 8 {
		joins.Go(func() {
			for range 10 {
				r.joinAndFollow(n%2 == 1)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		joins.Wait()
		close(done)
	}()
	ticker := time.NewTicker(500 * time.Microsecond)
	defer ticker.Stop()
	for id := 1; ; id += 3 {
		r.log.add(t, insert(id, ""), insert(id+1, ""), insert(id+2, ""))
		select {
		case <-done:
			eventually(t, "the log has no reader when nobody listens", func() bool { return r.log.open() == 0 })
			return
		case <-ticker.C:
		}
	}
}

// joinAndFollow joins, from now or from a place behind, and looks at the first changes.
func (r *rig) joinAndFollow(behind bool) {
	c, _, err := r.dial("", nil)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer func() { _ = c.conn.CloseNow() }()
	before := r.log.Last().Seq
	entry, least := everything, before+1
	if behind {
		least = max(100, before) - 99
		entry = since(strconv.FormatUint(least-1, 10))
	}
	c.write(`["1","1","realtime:changes","phx_join",{"config":{"presence":{"enabled":false},"postgres_changes":[` + entry + `]}}]`)
	seq := uint64(0)
	joined := uint64(0)
	for range 150 {
		m, err := c.next()
		if err != nil {
			r.t.Error(err)
			return
		}
		if m.event == "phx_reply" {
			joined = r.log.Last().Seq
		}
		if m.event != "postgres_changes" {
			continue
		}
		var got changed
		if err := json.Unmarshal(m.payload, &got); err != nil {
			r.t.Error(err)
			return
		}
		n := got.Data.Sequence
		if seq != 0 && n != seq+1 || seq == 0 && (n > joined+1 || n < least) || seq == 0 && behind && n != least {
			r.t.Errorf("sequence %d after %d; asked for %d, joined at %d", n, seq, least, joined)
		}
		seq = n
	}
}
