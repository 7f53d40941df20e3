package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/api"
)

// start starts a backfill of a consumer and returns it.
func (n *node) start(t *testing.T, consumer, body string) api.BackfillView {
	t.Helper()
	got := n.do("POST", "/v1/consumers/"+consumer+"/backfills", body)
	if got.status != 201 {
		t.Fatalf("start: %d %s", got.status, got.body)
	}
	v := mustJSON[api.BackfillView](t, got.body)
	if l := got.header.Get("Location"); l != "/v1/backfills/"+v.ID {
		t.Errorf("Location %q", l)
	}
	return v
}

func TestABackfillIsStartedByTheNamesOfTables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		body, where string
		tables      []string
	}{
		{"", "", nil},
		{`{}`, "", nil},
		{`{"table":"public.orders"}`, "", []string{"public.orders"}},
		{`{"tables":["public.orders","a.b"],"where":"amount > 100"}`, "amount > 100", []string{"public.orders", "a.b"}},
	} {
		n := newNode(t)
		v := n.start(t, "orders", c.body)
		var tables []string
		for _, one := range v.Tables {
			tables = append(tables, one.Name)
		}
		if v.N != 1 || v.Consumer == nil || v.Consumer.Name != "orders" || v.Where != c.where || !cmp.Equal(tables, c.tables) || v.State != "running" || v.Gap {
			t.Errorf("%s: %+v", c.body, v)
		}
		if second := n.start(t, "orders", c.body); second.N != 2 {
			t.Errorf("the second has the number %d", second.N)
		}
	}
}

func TestWhatABackfillIsShownAs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.start(t, "orders", `{"table":"public.orders"}`)
	for _, want := range []string{
		`"consumer":{"id":"`, `"database":"app"`, `"gap":false`, `"where":""`, `"origin":"api"`, `"state":"running"`, `"reason":""`,
		`"tables":[{"name":"public.orders","state":"running","reason":"","rows":0,"total":0}]`, `"rows":0`, `"total":0`, `"overridden":0`, `"deletes":0`,
		`"rows_per_second":0`, `"seconds_left":null`, `"started_at":null`, `"ended_at":null`,
	} {
		if got := n.do("GET", "/v1/backfills/"+v.ID, ""); !strings.Contains(got.body, want) {
			t.Errorf("it lacks %s: %s", want, got.body)
		}
	}
	n.backfills.mu.Lock()
	b := &n.backfills.all[0]
	b.Left, b.RowsPerSecond, b.StartedAt, b.Reason = 90*time.Second+time.Millisecond, 1234.5678, time.Now(), "connect postgres://u:hunter2@h/x failed"
	n.backfills.mu.Unlock()
	got := n.do("GET", "/v1/backfills/"+v.ID, "").body
	if strings.Contains(got, "hunter2") || !strings.Contains(got, `"seconds_left":91,`) || !strings.Contains(got, `"rows_per_second":1234.6,`) || strings.Contains(got, `"started_at":null`) {
		t.Errorf("%s", got)
	}
}

func TestBackfillsAreFoundByNumberAndById(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	first, second, other := n.start(t, "orders", ""), n.start(t, "orders", ""), n.start(t, "filed", "")
	for target, want := range map[string]string{
		"/v1/consumers/orders/backfills/1": first.ID, "/v1/http-consumers/orders/backfills/2": second.ID,
		"/v1/consumers/orders/backfills/" + first.ID: first.ID, "/v1/backfills/" + other.ID: other.ID,
	} {
		if got := n.do("GET", target, ""); got.status != 200 || mustJSON[api.BackfillView](t, got.body).ID != want {
			t.Errorf("%s: %d %s", target, got.status, got.body)
		}
	}
	for target, want := range map[string]int{
		"/v1/consumers/orders/backfills/3": 404, "/v1/consumers/orders/backfills/0": 400, "/v1/consumers/orders/backfills/x": 400,
		"/v1/consumers/orders/backfills/" + other.ID: 404, "/v1/consumers/nobody/backfills/1": 404, "/v1/http-consumers/printed/backfills/1": 404, "/v1/backfills/nope": 404,
	} {
		wantProblem(t, n.do("GET", target, ""), want)
	}
	for target, want := range map[string][]string{
		"/v1/consumers/orders/backfills": {second.ID, first.ID}, "/v1/backfills": {other.ID, second.ID, first.ID},
		"/v1/backfills?consumer=filed": {other.ID}, "/v1/backfills?database=app&limit=2": {other.ID, second.ID}, "/v1/backfills?limit=2&cursor=" + second.ID: {first.ID},
	} {
		var ids []string
		list := mustJSON[api.List[api.BackfillView]](t, n.do("GET", target, "").body)
		for _, b := range list.Data {
			ids = append(ids, b.ID)
		}
		if !cmp.Equal(ids, want) {
			t.Errorf("%s: %v, want %v", target, ids, want)
		}
		if more := strings.Contains(target, "limit=2") && !strings.Contains(target, "cursor"); more != (list.NextCursor != nil) {
			t.Errorf("%s: next_cursor %v", target, list.NextCursor)
		}
	}
	for target, want := range map[string]int{"/v1/backfills?consumer=nobody": 404, "/v1/backfills?database=nope": 404, "/v1/backfills?cursor=x": 400, "/v1/backfills?limit=0": 422, "/v1/backfills?active=maybe": 422} {
		wantProblem(t, n.do("GET", target, ""), want)
	}
}

func TestABackfillIsPausedResumedAndCancelled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.start(t, "orders", "")
	for _, c := range []struct{ target, body, want string }{
		{"/v1/consumers/orders/backfills/1", `{"state":"paused"}`, "paused"},
		{"/v1/consumers/orders/backfills/1", `{"state":"paused"}`, "paused"},
		{"/v1/backfills/" + v.ID, `{"action":"resume"}`, "running"},
		{"/v1/http-consumers/orders/backfills/1", `{"action":"pause","state":"paused"}`, "paused"},
		{"/v1/consumers/orders/backfills/1", `{"state":"running"}`, "running"},
		{"/v1/backfills/" + v.ID, `{"state":"cancelled"}`, "cancelled"},
		{"/v1/backfills/" + v.ID, `{"action":"cancel"}`, "cancelled"},
	} {
		if got := n.do("PATCH", c.target, c.body); got.status != 200 || mustJSON[api.BackfillView](t, got.body).State != c.want {
			t.Errorf("%s: %d %s", c.body, got.status, got.body)
		}
	}
	if p := wantProblem(t, n.do("PATCH", "/v1/backfills/"+v.ID, `{"state":"running"}`), 409); !strings.Contains(p.Detail, "start another") {
		t.Errorf("detail %q", p.Detail)
	}
	if got := n.do("GET", "/v1/backfills?active=true", ""); !strings.Contains(got.body, `"data":[]`) {
		t.Errorf("a cancelled one is active: %s", got.body)
	}
	for body, location := range map[string]string{
		`{}`: "body.state", `{"state":"completed"}`: "body.state", `{"action":"stop"}`: "body.action", `{"state":"paused","action":"cancel"}`: "body.action", `{"nonsense":1}`: "body.nonsense",
	} {
		if p := wantProblem(t, n.do("PATCH", "/v1/backfills/"+v.ID, body), 422); p.Errors[0].Location != location && !strings.HasPrefix(location, "body.nonsense") {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
	wantProblem(t, n.do("PATCH", "/v1/backfills/"+v.ID, `{"state":`), 400)
}

func TestAStartThatCannotBeSaysWhy(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for body, want := range map[string]string{
		`{"tables":[]}`: "body.tables", `{"tables":[""]}`: "body.tables[0]", `{"table":"a","tables":["b"]}`: "body.table", `{"tables":"a"}`: "body.tables",
	} {
		if p := wantProblem(t, n.do("POST", "/v1/consumers/orders/backfills", body), 422); p.Errors[0].Location != want {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
	wantProblem(t, n.do("POST", "/v1/consumers/nobody/backfills", ""), 404)
	for err, want := range map[error]int{lockstep.ErrInvalid: 422, lockstep.ErrConflict: 409, lockstep.ErrNotFound: 404, lockstep.ErrUnavailable: 503} {
		n.backfills.refuse(fmt.Errorf("public.v is a view: %w", err))
		if p := wantProblem(t, n.do("POST", "/v1/consumers/orders/backfills", ""), want); !strings.Contains(p.Detail, "public.v is a view") {
			t.Errorf("detail %q", p.Detail)
		}
	}
}

func TestGapsAreRepairedWhileOneIsOpen(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if p := wantProblem(t, n.do("POST", "/v1/databases/app/gaps/backfill", ""), 409); !strings.Contains(p.Detail, "no open gap") {
		t.Errorf("detail %q", p.Detail)
	}
	wantProblem(t, n.do("POST", "/v1/databases/nope/gaps/backfill", ""), 404)
	n.backfills.openGap()
	got := n.do("POST", "/v1/databases/app/gaps/backfill", "")
	v := mustJSON[api.BackfillView](t, got.body)
	if got.status != 201 || !v.Gap || v.Consumer != nil || !strings.Contains(got.body, `"consumer":null`) || got.header.Get("Location") != "/v1/backfills/"+v.ID {
		t.Errorf("%d %s", got.status, got.body)
	}
	wantProblem(t, n.do("GET", "/v1/consumers/orders/backfills/"+v.ID, ""), 404)
}

func TestANodeWithoutBackfillsSaysSo(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(c *api.Config) { c.Backfills = nil })
	for target, method := range map[string]string{
		"/v1/backfills": "GET", "/v1/backfills/0190b0e1-1c1c-7000-8000-000000000001": "GET", "/v1/consumers/orders/backfills": "GET",
		"/v1/consumers/orders/backfills/1": "GET", "/v1/http-consumers/orders/backfills": "POST", "/v1/databases/app/gaps/backfill": "POST",
	} {
		got := n.do(method, target, "")
		if p := wantProblem(t, got, 503); !strings.Contains(p.Detail, "runs no backfills") || got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %q", method, target, p.Detail)
		}
	}
	wantProblem(t, n.do("POST", "/v1/consumers", `{"name":"a","backfill":true}`), 503)
	if n.consumer("a") != nil {
		t.Error("a consumer was made that waits for rows for ever")
	}
	wantProblem(t, n.do("PATCH", "/v1/consumers/orders", `{"backfill":true}`), 503)
}

func TestAConsumerThatWantsExistingRowsGetsItsBackfill(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	got := n.do("POST", "/v1/http-consumers", `{"name":"a","backfill":true}`)
	if got.status != 201 || !strings.Contains(got.body, `"backfill":true`) {
		t.Fatalf("%d %s", got.status, got.body)
	}
	n.do("PATCH", "/v1/consumers/a", `{"max_attempts":3}`)
	if d := n.consumer("a").Definition(); !d.Backfill || !cmp.Equal(n.backfills.ensured, []string{d.ID}) {
		t.Errorf("after a change of something else: backfill %v, ensured %v", d.Backfill, n.backfills.ensured)
	}
	if got := n.do("PATCH", "/v1/consumers/orders", `{"backfill":true}`); got.status != 200 || len(n.backfills.ensured) != 2 {
		t.Errorf("asked for later: %d %s", got.status, got.body)
	}
	if got := n.do("GET", "/v1/consumers/printed", ""); !strings.Contains(got.body, `"backfill":false`) {
		t.Errorf("the others: %s", got.body)
	}
	// What cannot be had is not promised.
	n.backfills.refuse(fmt.Errorf("public.v has no usable key: %w", lockstep.ErrInvalid))
	before := len(n.audit.all())
	p := wantProblem(t, n.do("POST", "/v1/consumers", `{"name":"b","backfill":true}`), 422)
	if n.consumer("b") != nil || !strings.Contains(p.Detail, "public.v has no usable key") {
		t.Errorf("%q, and the consumer is there: %v", p.Detail, n.consumer("b") != nil)
	}
	n.do("POST", "/v1/consumers", `{"name":"c"}`)
	wantProblem(t, n.do("PATCH", "/v1/consumers/c", `{"backfill":true,"max_attempts":9}`), 422)
	if d := n.consumer("c").Definition(); d.Backfill || d.MaxAttempts != 0 {
		t.Errorf("the change was not taken back: %+v", d)
	}
	if len(n.audit.all()) != before+1 {
		t.Errorf("%d entries, want that of the one consumer made", len(n.audit.all())-before)
	}
}

func TestADatabaseTellsOfGapsWarningsAndOldTransactions(t *testing.T) {
	t.Parallel()
	status := api.DatabaseStatus{Capture: "wal", Connected: true, Slot: &api.SlotStatus{Name: "s"}}
	n := newNodeWith(t, func(c *api.Config) {
		c.Databases = func() []api.Database {
			return []api.Database{{Name: "app", Status: func() api.DatabaseStatus { return status }}}
		}
	})
	want := func(parts ...string) {
		t.Helper()
		for _, target := range []string{"/v1/databases/app", "/v1/databases", "/v1/status"} {
			for _, part := range parts {
				if got := n.do("GET", target, ""); !strings.Contains(got.body, part) {
					t.Errorf("%s lacks %s: %s", target, part, got.body)
				}
			}
		}
	}
	want(`"status":"ok"`, `"gaps":[]`, `"warnings":[]`, `"safe_bytes":null`)
	safe := int64(1 << 30)
	status.Slot.SafeBytes = &safe
	status.Warnings = []string{"the slot holds back 30 GB: see postgres://u:hunter2@h/x"}
	status.OldestTransaction = &api.TransactionStatus{PID: 7, XID: "733", AgeS: 90, State: "idle in transaction", User: "ann"}
	want(`"status":"warn","reason":"the slot holds back 30 GB`, `"safe_bytes":1073741824`, `"oldest_transaction":{"pid":7,"xid":"733","age_s":90,"state":"idle in transaction","user":"ann"}`)
	if got := n.do("GET", "/v1/databases/app", ""); strings.Contains(got.body, "hunter2") {
		t.Errorf("a secret shows: %s", got.body)
	}
	status.Gaps = []api.GapStatus{{Reason: "slot_lost", FromLSN: "0/1", ToLSN: "0/2", At: time.Unix(1, 0)}}
	want(`"status":"warn","reason":"changes may be missing (slot_lost); lockstep backfill --gap --database app"`,
		`"gaps":[{"reason":"slot_lost","tables":[],"from_lsn":"0/1","to_lsn":"0/2","at":"1970-01-01T00:00:01Z","remedy":"lockstep backfill --gap --database app"}]`)
	status.Status, status.Reason = "error", "not connected"
	want(`"status":"error","reason":"not connected"`)
}
