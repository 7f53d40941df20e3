package api_test

import (
	"net/url"
	"strings"
	"testing"

	"lockstep/internal/api"
)

// A definition that a file keeps is not changed behind the file's back, at any address.
func TestWhatWasAppliedIsChangedByHandOnlyWithOverride(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ base, make, change string }{
		{"/v1/consumers", `{"name":"kept"}`, `{"ack_wait":"1m"}`},
		{"/v1/http-consumers", `{"name":"kept"}`, `{"ack_wait":"1m"}`},
		{"/v1/syncs", `{"name":"kept","provider":"stripe"}`, `{"every":"1m"}`},
	} {
		t.Run(c.base, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			type view struct {
				ManagedBy   string `json:"managed_by"`
				AppliedFrom string `json:"applied_from"`
			}
			if v := mustJSON[view](t, n.do("POST", c.base+"?applied_from=a.yml", c.make).body); v != (view{"apply", "a.yml"}) {
				t.Fatalf("made: %+v", v)
			}
			at := c.base + "/kept"
			for _, query := range []string{"", "?applied_from=b.yml"} {
				if p := wantProblem(t, n.do("PATCH", at+query, c.change), 409); !strings.Contains(p.Detail, "a.yml") || !strings.Contains(p.Detail, "--override") || !strings.Contains(p.Detail, "override=true") {
					t.Errorf("PATCH %s: %s", query, p.Detail)
				}
				wantProblem(t, n.do("DELETE", at+query, ""), 409)
			}
			if v := mustJSON[view](t, n.do("PATCH", at+"?override=true", c.change).body); v != (view{"apply", "a.yml"}) {
				t.Errorf("overridden: %+v", v)
			}
			if v := mustJSON[view](t, n.do("PATCH", at+"?applied_from=b.yml&override=true", c.change).body); v != (view{"apply", "b.yml"}) {
				t.Errorf("taken over: %+v", v)
			}
			if got := n.do("PATCH", at+"?applied_from=b.yml", c.change); got.status != 200 {
				t.Errorf("by its own file: %d %s", got.status, got.body)
			}
			if got := n.do("DELETE", at+"?override=true", ""); got.status != 204 {
				t.Errorf("deleted: %d %s", got.status, got.body)
			}
		})
	}
}

func TestAChangeOfWhatWasChangedMeanwhileIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	seen := mustJSON[api.ConsumerView](t, n.do("GET", "/v1/consumers/orders", "").body).UpdatedAt
	at := "/v1/consumers/orders?expected_updated_at=" + url.QueryEscape(seen.Format("2006-01-02T15:04:05.999999999Z07:00"))
	if got := n.do("PATCH", at, `{"ack_wait":"1m"}`); got.status != 200 && !seen.IsZero() {
		t.Fatalf("%d %s", got.status, got.body)
	}
	seen = mustJSON[api.ConsumerView](t, n.do("PATCH", "/v1/consumers/orders", `{"ack_wait":"2m"}`).body).UpdatedAt
	at = "/v1/consumers/orders?expected_updated_at=" + url.QueryEscape(seen.Format("2006-01-02T15:04:05.999999999Z07:00"))
	if got := n.do("PATCH", at, `{"ack_wait":"3m"}`); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for _, method := range []string{"PATCH", "DELETE"} {
		if p := wantProblem(t, n.do(method, at, `{}`), 409); !strings.Contains(p.Detail, "was changed at") {
			t.Errorf("%s: %s", method, p.Detail)
		}
	}
	if v := mustJSON[api.ConsumerView](t, n.do("GET", "/v1/consumers/orders", "").body); v.AckWait != "3m" {
		t.Errorf("ack_wait %s", v.AckWait)
	}
	wantProblem(t, n.do("PATCH", "/v1/consumers/filed?override=true&applied_from=a.yml", `{"ack_wait":"1m"}`), 409)
}
