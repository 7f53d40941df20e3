package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
)

const syncJSON = `{"id":"s1","name":"acme","provider":"stripe","database":"app","schema":"stripe","state":"polling","reason":"","account":"acct_1","external_id":null,` +
	`"health":{"status":"ok","sync_id":"s1"},"backfilled_at":null,"collections":[{"name":"stripe:customer","table":"stripe.customer","state":"polling","records":7,"records_per_second":1.5}],` +
	`"quotas":[{"bucket":"global","limit":100,"remaining":null,"requests":5}],"created_at":"2026-11-21T10:00:00Z","new_field":12345678901234567890}`

func TestEveryCallOfSyncsIsTheContracts(t *testing.T) {
	t.Parallel()
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
		_, _ = io.WriteString(w, syncJSON)
	})
	ctx := t.Context()
	for want, do := range map[string]func() (client.Sync, error){
		`POST /v1/syncs {"name":"acme","provider":"stripe","credential":{"properties":{"secret":"s"}},"rate_limit":{"reserve":0.2}}`: func() (client.Sync, error) {
			return c.CreateSync(ctx, client.SyncDefinition{Name: "acme", Provider: "stripe", Credential: &client.SyncCredential{Properties: map[string]string{"secret": "s"}}, RateLimit: &client.SyncRateLimit{Reserve: 0.2}})
		},
		`GET /v1/syncs/a%2Fb `:                                        func() (client.Sync, error) { return c.Sync(ctx, "a/b") },
		`PATCH /v1/syncs/a {"every":1}`:                               func() (client.Sync, error) { return c.UpdateSync(ctx, "a", map[string]int{"every": 1}) },
		`POST /v1/syncs/a/run `:                                       func() (client.Sync, error) { return c.RunSync(ctx, "a") },
		`POST /v1/syncs/a/pause `:                                     func() (client.Sync, error) { return c.PauseSync(ctx, "a") },
		`POST /v1/syncs/a/resume `:                                    func() (client.Sync, error) { return c.ResumeSync(ctx, "a") },
		`POST /v1/syncs/a/resync {}`:                                  func() (client.Sync, error) { return c.ResyncSync(ctx, "a") },
		`POST /v1/syncs/a/resync {"collections":["stripe:customer"]}`: func() (client.Sync, error) { return c.ResyncSync(ctx, "a", "stripe:customer") },
	} {
		s, err := do()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err != nil || s.Account != "acct_1" || s.Collections[0].Records != 7 || *s.Quotas[0].Limit != 100 || s.Quotas[0].Remaining != nil || string(s.Raw) != syncJSON {
			t.Errorf("%s: %+v, %v", want, s, err)
		}
	}
	if err := c.DeleteSync(ctx, "a"); err != nil || got != "DELETE /v1/syncs/a " {
		t.Errorf("delete: %s, %v", got, err)
	}
}

func TestSyncsAndTheirLogsAreListed(t *testing.T) {
	t.Parallel()
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.RequestURI()
		if strings.HasSuffix(r.URL.Path, "/log") {
			_, _ = io.WriteString(w, `{"data":[{"id":7,"at":"2026-11-21T10:00:00Z","kind":"poll","collection":"stripe:customer","outcome":"completed","message":"m","payload":{"n":1}}],"next_cursor":"7"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"data":[%s,%s],"next_cursor":null}`, syncJSON, syncJSON)
	})
	if list, err := c.Syncs(t.Context()); err != nil || len(list) != 2 || len(list[1].Raw) == 0 {
		t.Errorf("got %d, %v", len(list), err)
	}
	for before, want := range map[int64]string{0: "/v1/syncs/a/log?limit=20", 8: "/v1/syncs/a/log?cursor=8&limit=20"} {
		log, err := c.SyncLog(t.Context(), "a", before, 20)
		if err != nil || got != want || len(log) != 1 || log[0].ID != 7 || string(log[0].Payload) != `{"n":1}` || len(log[0].Raw) == 0 {
			t.Errorf("%s, want %s: %+v, %v", got, want, log, err)
		}
	}
}

func TestAWaitIsMadeOnceAndTellsThatTheTimeIsUp(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.RequestURI()
		if calls.Add(1) > 1 {
			refuse(w, http.StatusGatewayTimeout, "")
			return
		}
		_, _ = io.WriteString(w, `{"waited_ms":1500}`)
	})
	if waited, err := c.WaitSync(t.Context(), "a", client.SyncWait{Timeout: time.Minute, Consumer: "orders"}); err != nil || waited != 1500*time.Millisecond || got != "/v1/syncs/a/wait?consumer=orders&timeout=60000" {
		t.Errorf("%s: %s, %v", got, waited, err)
	}
	_, err := c.WaitSync(t.Context(), "a", client.SyncWait{})
	if p, ok := errors.AsType[*client.Problem](err); !ok || p.Status != http.StatusGatewayTimeout || calls.Load() != 2 || got != "/v1/syncs/a/wait?timeout=30000" {
		t.Errorf("%s: %v after %d calls", got, err, calls.Load())
	}
}

func TestVerifyIsMadeOnce(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	var got string
	const answer = `{"equal":false,"checked":9,"missing":[{"collection":"stripe:customer","id":"cus_1"}],"stale":[],"extra":[],"missing_count":1,"stale_count":0,"extra_count":0,"repaired":0,"unchecked":[{"collection":"stripe:file","reason":"r"}]}`
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
		if calls.Add(1) > 1 {
			refuse(w, http.StatusServiceUnavailable, "")
			return
		}
		_, _ = io.WriteString(w, answer)
	})
	v, err := c.VerifySync(t.Context(), "a", client.VerifyOptions{Repair: true, Collections: []string{"stripe:customer"}})
	if err != nil || v.Equal || v.Missing[0].ID != "cus_1" || v.Unchecked[0].Reason != "r" || string(v.Raw) != answer || got != `POST /v1/syncs/a/verify {"collections":["stripe:customer"],"repair":true}` {
		t.Errorf("%s: %+v, %v", got, v, err)
	}
	if _, err := c.VerifySync(t.Context(), "a", client.VerifyOptions{}); !errors.Is(err, lockstep.ErrUnavailable) || calls.Load() != 2 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestAClaimStandsInTheQueryOfEveryChange(t *testing.T) {
	t.Parallel()
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.RequestURI()
		_, _ = io.WriteString(w, `{}`)
	})
	claim := client.Claim{AppliedFrom: "a b.yml", Override: true, Expected: time.Date(2026, 11, 21, 10, 0, 0, 1000, time.UTC)}
	const query = "?applied_from=a+b.yml&expected_updated_at=2026-11-21T10%3A00%3A00.000001Z&override=true"
	with, ctx := c.With(claim), t.Context()
	for want, do := range map[string]func() error{
		"POST /v1/consumers" + query:     func() error { _, err := with.CreateConsumer(ctx, struct{}{}); return err },
		"PATCH /v1/consumers/a" + query:  func() error { _, err := with.UpdateConsumer(ctx, "a", struct{}{}); return err },
		"DELETE /v1/consumers/a" + query: func() error { return with.DeleteConsumer(ctx, "a") },
		"POST /v1/syncs" + query:         func() error { _, err := with.CreateSync(ctx, struct{}{}); return err },
		"PATCH /v1/syncs/a" + query:      func() error { _, err := with.UpdateSync(ctx, "a", struct{}{}); return err },
		"DELETE /v1/syncs/a" + query:     func() error { return with.DeleteSync(ctx, "a") },
		"DELETE /v1/syncs/b":             func() error { return c.DeleteSync(ctx, "b") },
	} {
		if err := do(); err != nil || got != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}
