package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/pull"
	"lockstep/internal/syncs"
)

// definition returns what the node keeps of a sync.
func (n *node) definition(t testing.TB, ref string) syncs.Definition {
	t.Helper()
	v, err := n.syncs.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return v.Definition
}

func TestASyncIsDefinedInTheWordsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	got := n.do("POST", "/v1/syncs", `{"name":"acme","provider":"stripe","base_url":"http://127.0.0.1:12111","credential":{"kind":"stripe_key","properties":{"secret":"sk_hunter2"}},
		"collections":["stripe:customer","stripe:invoice","stripe:customer"],"database":"app","schema":"s","rate_limit":{"requests_per_second":50.5,"max_concurrent":8,"reserve":0.2},
		"every":"5s","external_id":"x","metadata":{"a":[1.10]},"paused":true}`)
	if got.status != 201 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	v := mustJSON[api.SyncView](t, got.body)
	if got.header.Get("Location") != "/v1/syncs/"+v.ID {
		t.Errorf("Location %q", got.header.Get("Location"))
	}
	d := n.definition(t, "acme")
	want := syncs.Definition{
		ID: d.ID, Name: "acme", Provider: "stripe", BaseURL: "http://127.0.0.1:12111", Credential: syncs.Credential{Kind: "stripe_key", Properties: map[string]string{"secret": "sk_hunter2"}},
		Collections: []string{"stripe:customer", "stripe:invoice"}, Database: "app", Schema: "s", RateLimit: syncs.RateLimit{RequestsPerSecond: 50.5, MaxConcurrent: 8, Reserve: 0.2},
		Every: 5 * time.Second, ExternalID: "x", Metadata: json.RawMessage(`{"a":[1.10]}`), Paused: true, ManagedBy: "api", CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("definition (-want +got):\n%s", diff)
	}
}

// The body of 2024, null members and all.
func TestASyncIsDefinedInTheWordsOf2024(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	got := n.do("POST", "/v1/syncs", `{"provider":"github","collection_ids":["github:pull_request"],
		"credential":{"provider":"github","properties":{"kind":"github_app","installation_id":12345678901234567,"private":true,"note":null},"oauth_app_id":null,"metadata":null},
		"stream_id":null,"max_age_days":null,"credential_id":null,"sync_frequency":"4h","rate_limit":{"allowed_requests":300,"interval":60000,"max_concurrent_requests":3},
		"metadata":null,"external_id":"org-7"}`)
	if got.status != 201 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	d := n.definition(t, "github")
	want := map[string]string{"installation_id": "12345678901234567", "private": "true"}
	if diff := cmp.Diff(want, d.Credential.Properties); diff != "" || d.Credential.Kind != "github_app" {
		t.Errorf("credential %q (-want +got):\n%s", d.Credential.Kind, diff)
	}
	if d.Every != 4*time.Hour || d.RateLimit != (syncs.RateLimit{RequestsPerSecond: 5, MaxConcurrent: 3}) || d.Metadata != nil || !cmp.Equal(d.Collections, []string{"github:pull_request"}) {
		t.Errorf("%+v", d)
	}
	for _, member := range []string{
		`"status":"active"`, `"collection_ids":["github:pull_request"]`, `"sync_frequency":"4h"`, `"every":"4h"`, `"external_id":"org-7"`, `"metadata":null`,
		`"initial_backfill_completed_at":null`, `"health":{"status":"ok","sync_id":"` + d.ID + `"}`, `"allowed_requests":5,"interval":1000,"max_concurrent_requests":3`,
		`"requests_per_second":5,"max_concurrent":3`, `"name":"github"`,
	} {
		if !strings.Contains(got.body, member) {
			t.Errorf("the answer lacks %s: %s", member, got.body)
		}
	}
	second := n.do("POST", "/v1/syncs", `{"provider":"github","sync_frequency":"continuous","rate_limit":null,"credential":{"properties":{}}}`)
	if second.status != 201 || n.definition(t, "github-2").Every != 0 || !strings.Contains(second.body, `"rate_limit":null`) {
		t.Errorf("a second one without a name: %d %s", second.status, second.body)
	}
}

func TestWhatIsWrongWithASyncIsToldAllAtOnce(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{}`: "provider",
		`{"provider":"stripe","credential_id":"c1"}`:                                                    "credential_id",
		`{"provider":"stripe","stream_id":"s","max_age_days":30}`:                                       "stream_id max_age_days",
		`{"provider":"stripe","name":"a/b"}`:                                                            "name",
		`{"provider":"stripe","name":""}`:                                                               "name",
		`{"provider":"stripe","collections":["stripe:a"],"collection_ids":["stripe:a"]}`:                "collection_ids",
		`{"provider":"stripe","collections":["stripe:a",""]}`:                                           "collections[1]",
		`{"provider":"stripe","every":"x"}`:                                                             "every",
		`{"provider":"stripe","every":"5s","sync_frequency":"5s"}`:                                      "sync_frequency",
		`{"provider":"stripe","sync_frequency":"often"}`:                                                "sync_frequency",
		`{"provider":"stripe","rate_limit":{"requests_per_second":1,"allowed_requests":1}}`:             "rate_limit.allowed_requests",
		`{"provider":"stripe","rate_limit":{"requests_per_second":0,"max_concurrent":0}}`:               "rate_limit.requests_per_second rate_limit.max_concurrent",
		`{"provider":"stripe","rate_limit":{"interval":1000,"reserve":1}}`:                              "rate_limit.interval rate_limit.reserve",
		`{"provider":"stripe","rate_limit":{"allowed_requests":1,"interval":0}}`:                        "rate_limit.allowed_requests",
		`{"provider":"stripe","base_url":"ftp://x"}`:                                                    "base_url",
		`{"provider":"stripe","base_url":"https://u:hunter2@x"}`:                                        "base_url",
		`{"provider":"stripe","spec":"name: x"}`:                                                        "spec",
		`{"provider":"rest"}`:                                                                           "spec",
		`{"provider":"rest","spec":"shop.yaml"}`:                                                        "spec",
		`{"provider":"stripe","credential":{"provider":"github","properties":{"secret":"hunter2"}}}`:    "credential.provider",
		`{"provider":"stripe","credential":{"properties":{"secret":["hunter2"],"x":{"y":"hunter2"}}}}`:  "credential.properties.secret credential.properties.x",
		`{"provider":"stripe","credential":{"kind":"a","properties":{"kind":"b"}}}`:                     "credential.properties.kind",
		`{"provider":"stripe","credential":{"oauth_app_id":"a","metadata":{}}}`:                         "credential.oauth_app_id credential.metadata",
		`{"provider":"stripe","colour":"red"}`:                                                          "colour",
		`{"provider":"stripe","credential":{"properties":{"secret":"hunter2"}},"rate_limit":"hunter2"}`: "rate_limit",
	} {
		n := newNode(t)
		got := n.do("POST", "/v1/syncs", body)
		p := wantProblem(t, got, 422)
		var fields []string
		for _, f := range p.Errors {
			fields = append(fields, strings.TrimPrefix(f.Location, "body."))
		}
		if strings.Join(fields, " ") != want || strings.Contains(got.body, "hunter2") {
			t.Errorf("%s: faults at %v, want %s: %s", body, fields, want, got.body)
		}
		if len(n.syncs.all) != 0 || len(n.audit.all()) != 0 {
			t.Errorf("%s: something was made", body)
		}
	}
}

// The guide of 2024 has one bracket too many.
func TestMalformedJSONOfASyncIsToldWithItsPlace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := wantProblem(t, n.do("POST", "/v1/syncs", `{"provider":"github","name":"a","credential":{"provider":"github","properties":{"kind":"github_app"}}}}`), 400)
	if !strings.Contains(p.Detail, "one closing bracket too many") || !strings.Contains(p.Detail, "line 1, column") {
		t.Errorf("detail %q", p.Detail)
	}
}

func TestTheFaultsThatTheNodeFindsAreToldWithTheirPlaces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.refuse = func(d syncs.Definition) error {
		return &syncs.DefinitionError{Name: d.Name, Problems: []syncs.Problem{{Field: "collections[0]", Message: "there is no collection stripe:custmer, did you mean stripe:customer?"}, {Field: "schema", Message: "it is taken"}}}
	}
	p := wantProblem(t, n.do("POST", "/v1/syncs", `{"provider":"stripe"}`), 422)
	if len(p.Errors) != 2 || p.Errors[0].Location != "body.collections[0]" || p.Errors[1].Location != "body.schema" {
		t.Errorf("%+v", p.Errors)
	}
	n.syncs.refuse = nil
	n.syncs.made(t, "stripe")
	wantProblem(t, n.do("POST", "/v1/syncs", `{"provider":"stripe","name":"stripe"}`), 409)
}

func TestASecretIsNeverShown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	n.syncs.tell("acme", func(v *syncs.View) { v.Status.Reason = "https://u:hunter2@api failed" })
	var all strings.Builder
	for _, call := range [][2]string{
		{"GET", ""}, {"GET", "/acme"}, {"POST", "/acme/pause"}, {"POST", "/acme/resume"}, {"POST", "/acme/run"}, {"POST", "/acme/resync"}, {"POST", "/acme/verify"}, {"GET", "/acme/log"}, {"DELETE", "/acme"},
	} {
		got := n.do(call[0], "/v1/syncs"+call[1], "")
		if got.status >= 300 {
			t.Errorf("%v: %d %s", call, got.status, got.body)
		}
		all.WriteString(got.body)
	}
	if !strings.Contains(all.String(), `"credential":{"provider":"stripe","kind":"stripe_key","property_names":["secret","webhook_secret"]}`) {
		t.Error("what the credential holds is not told")
	}
	if got := n.do("POST", "/v1/syncs", `{"provider":"stripe","name":"b","credential":{"properties":{"secret":"hunter2"}}}`); got.status != 201 {
		t.Fatal(got.body)
	}
	if got := n.do("PATCH", "/v1/syncs/b", `{"credential":{"properties":{"secret":"hunter2-new"}}}`); got.status != 200 {
		t.Fatal(got.body)
	}
	entries := n.audit.all()
	for _, e := range entries {
		all.Write(e.Before)
		all.Write(e.After)
	}
	if last := entries[len(entries)-1]; !strings.Contains(string(last.After), `"credential_renewed":true`) || strings.Contains(string(last.Before), "renewed") {
		t.Errorf("the audit does not tell that the credential is another: %s → %s", last.Before, last.After)
	}
	if text := all.String() + n.logged.String(); strings.Contains(text, "hunter2") {
		t.Errorf("a secret is in %s", text)
	}
}

func TestASyncIsChangedInPart(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	before := n.definition(t, "acme")
	got := n.do("PATCH", "/v1/syncs/acme", `{"collections":["stripe:customer"],"rate_limit":{"reserve":0.5},"metadata":{"a":1},"sync_frequency":"1m"}`)
	if got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	want := before
	want.Collections, want.RateLimit.Reserve, want.Metadata, want.Every = []string{"stripe:customer"}, 0.5, json.RawMessage(`{"a":1}`), time.Minute
	if diff := cmp.Diff(want, n.definition(t, "acme")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n.do("PATCH", "/v1/syncs/acme", `{"rate_limit":{}}`); n.definition(t, "acme").RateLimit != (syncs.RateLimit{}) {
		t.Error("the rate limit was not lifted")
	}
	for body, field := range map[string]string{
		`{"provider":"github"}`: "provider", `{"database":"other"}`: "database", `{"schema":"other"}`: "schema", `{"credential_id":"x"}`: "credential_id", `{"paused":true}`: "paused",
	} {
		p := wantProblem(t, n.do("PATCH", "/v1/syncs/acme", body), 422)
		if p.Errors[0].Location != "body."+field {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
	n.syncs.tell("acme", func(v *syncs.View) { v.Definition.ManagedBy = "file" })
	wantProblem(t, n.do("PATCH", "/v1/syncs/acme", `{"every":"5s"}`), 409)
}

// Whoever may change a sync does not have its credential, and must not get it by
// having it sent to a server of their own.
func TestAStoredCredentialIsNotSentElsewhere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	p := wantProblem(t, n.do("PATCH", "/v1/syncs/acme", `{"base_url":"https://evil.example"}`), 422)
	if p.Errors[0].Location != "body.base_url" || n.definition(t, "acme").BaseURL != "" {
		t.Errorf("%+v", p)
	}
	if got := n.do("PATCH", "/v1/syncs/acme", `{"base_url":"https://evil.example","credential":{"properties":{"secret":"theirs"}}}`); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if d := n.definition(t, "acme"); !cmp.Equal(d.Credential.Properties, map[string]string{"secret": "theirs"}) {
		t.Error("properties of the old credential went along")
	}
	if got := n.do("POST", "/v1/syncs", `{"provider":"rest","name":"r","spec":"name: x\nbase_url: http://a\n"}`); got.status != 201 {
		t.Fatal(got.body)
	}
	p = wantProblem(t, n.do("PATCH", "/v1/syncs/r", `{"spec":"name: x\nbase_url: http://evil\n"}`), 422)
	if p.Errors[0].Location != "body.spec" {
		t.Errorf("%+v", p)
	}
}

func TestASyncIsSteered(t *testing.T) {
	t.Parallel()
	n := newNode(t, auth.Static{Name: "boss", Token: "boss", Scopes: []string{"admin"}})
	id := n.syncs.made(t, "acme").Definition.ID
	for _, c := range []struct{ verb, body, asked, member, audit string }{
		{"run", "", "run", `"status":"active"`, "sync.run"},
		{"pause", "", "pause", `"status":"disabled"`, "sync.pause"},
		{"resume", "", "resume", `"state":"polling"`, "sync.resume"},
		{"resync", "", "resync []", `"state":"backfilling"`, "sync.resync"},
		{"resync", `{"collections":["stripe:customer"]}`, "resync [stripe:customer]", `"state":"backfilling"`, "sync.resync"},
	} {
		got := n.do("POST", "/v1/syncs/"+id+"/"+c.verb, c.body, "Authorization: Bearer boss")
		if got.status != 200 || !strings.Contains(got.body, c.member) || n.syncs.last() != c.asked {
			t.Errorf("%s %s: %d %s; asked %s", c.verb, c.body, got.status, got.body, n.syncs.last())
		}
		entries := n.audit.all()
		if e := entries[len(entries)-1]; e.Action != c.audit || e.Target != "acme" {
			t.Errorf("%s: audit %+v", c.verb, e)
		}
	}
	wantProblem(t, n.do("POST", "/v1/syncs/"+id+"/resync", `{"collections":["stripe:nothing"]}`, "Authorization: Bearer boss"), 422)
	for _, verb := range []string{"run", "pause", "resume", "resync", "verify"} {
		wantProblem(t, n.do("POST", "/v1/syncs/nobody/"+verb, "", "Authorization: Bearer boss"), 404)
	}
}

func TestWhatASyncIsShownAs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	at := time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.FixedZone("", 3600))
	n.syncs.tell("acme", func(v *syncs.View) {
		v.Status = pull.Status{
			State: pull.Backfilling, Account: "acct_1", BackfilledAt: at,
			Collections: []pull.Collection{{Name: "stripe:customer", Table: "stripe.customer", State: pull.Polling, Records: 7, Rate: 12.34, PolledAt: at, Changed: 3, Deleted: 1}},
			Quotas:      []pull.Quota{{Bucket: "global", Limit: 100, Remaining: 80, Requests: 5}, {Bucket: "files", Remaining: -1, PausedTo: at, Refusals: 2}},
		}
	})
	got := n.do("GET", "/v1/syncs/acme", "").body
	for _, want := range []string{
		`"state":"backfilling","reason":""`, `"account":"acct_1"`, `"backfilled_at":"2026-11-21T09:00:00.123456Z"`, `"initial_backfill_completed_at":"2026-11-21T09:00:00.123456Z"`,
		`"collection_ids":["stripe:customer"]`, `"sync_frequency":"continuous"`, `"every":null`,
		`"collections":[{"name":"stripe:customer","table":"stripe.customer","state":"polling","reason":"","records":7,"records_per_second":12.3,"polled_at":"2026-11-21T09:00:00.123456Z",` +
			`"next_at":null,"swept_at":null,"changed":3,"deleted":1,"parked":0}]`,
		`{"bucket":"global","limit":100,"remaining":80,"reset_at":null,"paused_to":null,"refusals":0,"requests":5}`,
		`{"bucket":"files","limit":null,"remaining":null,"reset_at":null,"paused_to":"2026-11-21T09:00:00.123456Z","refusals":2,"requests":0}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %s: %s", want, got)
		}
	}
	if list := n.do("GET", "/v1/syncs?limit=1000", "").body; !strings.Contains(list, `"next_cursor":null`) || !strings.Contains(list, `"account":"acct_1"`) {
		t.Errorf("list: %s", list)
	}
	wantProblem(t, n.do("GET", "/v1/syncs/nobody", ""), 404)
}

func TestTheHealthOfASyncSaysWhetherAPersonShouldLook(t *testing.T) {
	t.Parallel()
	collection := func(s pull.State, parked int) []pull.Collection {
		return []pull.Collection{{Name: "stripe:file", State: s, Parked: parked}}
	}
	for want, status := range map[string]pull.Status{
		`"ok"`:                                   {State: pull.Polling, Collections: collection(pull.Polling, 0)},
		`"warn"`:                                 {State: pull.Failing},
		`"error","reason":"the key was revoked"`: {State: pull.Blocked, Reason: "the key was revoked"},
		`"paused"`:                               {State: pull.Paused, Collections: collection(pull.Failing, 0)},
		`"warn","reason":"stripe:file: see the reason of each collection"`: {State: pull.Polling, Collections: collection(pull.Blocked, 0)},
		`"warn","reason":"3 records were refused`:                          {State: pull.Polling, Collections: collection(pull.Polling, 3)},
	} {
		n := newNode(t)
		n.syncs.made(t, "acme")
		n.syncs.tell("acme", func(v *syncs.View) { v.Status = status })
		if got := n.do("GET", "/v1/syncs/acme", "").body; !strings.Contains(got, `"health":{"status":`+want) {
			t.Errorf("want %s: %s", want, got)
		}
	}
}

func TestTheLogOfASyncIsReadInPages(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	for id := int64(5); id > 0; id-- {
		n.syncs.entries = append(n.syncs.entries, syncs.Entry{ID: id, At: time.Unix(id, 0), Kind: "poll", Collection: "stripe:customer", Outcome: "completed", Message: "m", Payload: json.RawMessage(`{"n":1}`)})
	}
	var seen []string
	for target, pages := "/v1/syncs/acme/log?limit=2", 0; target != ""; pages++ {
		page := mustJSON[struct {
			Data []api.SyncEntryView `json:"data"`
			Next *string             `json:"next_cursor"`
		}](t, n.do("GET", target, "").body)
		for _, e := range page.Data {
			seen = append(seen, fmt.Sprint(e.ID))
		}
		target = ""
		if page.Next != nil {
			target = "/v1/syncs/acme/log?limit=2&cursor=" + *page.Next
		}
	}
	if strings.Join(seen, "") != "54321" {
		t.Errorf("seen %v", seen)
	}
	if got := n.do("GET", "/v1/syncs/acme/log", "").body; !strings.Contains(got, `{"id":5,"at":"1970-01-01T00:00:05Z","kind":"poll","collection":"stripe:customer","outcome":"completed","message":"m","payload":{"n":1}}`) {
		t.Errorf("%s", got)
	}
	wantProblem(t, n.do("GET", "/v1/syncs/acme/log?cursor=x", ""), 400)
	wantProblem(t, n.do("GET", "/v1/syncs/nobody/log", ""), 404)
}

func TestANodeWithoutSyncsSaysSo(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(c *api.Config) { c.Syncs = nil })
	for _, call := range [][3]string{
		{"GET", "", ""}, {"POST", "", `{"provider":"stripe"}`}, {"GET", "/a", ""}, {"PATCH", "/a", "{}"}, {"DELETE", "/a", ""}, {"POST", "/a/run", ""}, {"POST", "/a/resync", ""},
		{"GET", "/a/wait", ""}, {"POST", "/a/verify", ""}, {"GET", "/a/log", ""}, {"POST", "/a/webhook", "{}"},
	} {
		wantProblem(t, n.do(call[0], "/v1/syncs"+call[1], call[2]), 503)
	}
}

func TestAnErrorOfTheNodeItselfIsNotShown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	n.syncs.fails = errors.New("dial 10.1.2.3")
	for _, call := range [][2]string{{"GET", "/wait"}, {"POST", "/verify"}} {
		if p := wantProblem(t, n.do(call[0], "/v1/syncs/acme"+call[1], ""), 500); strings.Contains(p.Detail, "10.1.2.3") {
			t.Error(p.Detail)
		}
	}
}
