package api_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/events"
)

func TestWhoMayFollowWhom(t *testing.T) {
	t.Parallel()
	var static []auth.Static
	for _, scope := range []string{"admin", "write", "read", "consume", "consume:toto", "consume:tata"} {
		static = append(static, auth.Static{Name: scope, Token: scope, Scopes: []string{scope}})
	}
	static = append(static, auth.Static{Name: "both", Token: "both", Scopes: []string{"consume:toto", "consume:tata"}})
	n, e, _ := newEvents(t, nil, events.Limits{}, static...)
	for _, c := range []struct {
		token, query string
		want         int
	}{
		{"admin", "?consumer_id=toto", 200}, {"write", "?consumer_id=toto", 200}, {"read", "?consumer_id=toto", 200}, {"consume", "?consumer_id=toto", 200},
		{"consume:toto", "?consumer_id=toto", 200}, {"consume:tata", "?consumer_id=toto", 403}, {"wrong", "?consumer_id=toto", 401},
		{"consume:toto", "", 200}, {"both", "", 403}, {"both", "?consumer_id=tata", 200}, {"read", "", 400}, {"consume", "", 400},
		{"read", "?consumer_id=toto&table=other", 200}, {"consume", "?consumer_id=toto&table=other", 403}, {"consume:toto", "?database=b", 403},
	} {
		if got := n.do("HEAD", "/events"+c.query, "", "Authorization: Bearer "+c.token); got.status != c.want {
			t.Errorf("HEAD /events%s by %s: %d, want %d: %s", c.query, c.token, got.status, c.want, got.body)
		}
	}
	if got := n.do("HEAD", "/events?consumer_id=toto&table=shop.news&database=b", "", "Authorization: Bearer read"); got.status != 200 || e.asked != "b/shop.news" {
		t.Errorf("%d, asked for %s", got.status, e.asked)
	}
	for _, c := range []struct {
		token, body string
		want        int
	}{
		{"consume:toto", ``, 201}, {"consume:toto", `{"consumer_id":"toto"}`, 201}, {"consume:toto", `{"consumer_id":"tata"}`, 403},
		{"consume", `{"consumer_id":"tata"}`, 201}, {"read", `{"consumer_id":"tata","table":"news"}`, 201}, {"consume", `{"consumer_id":"tata","table":"news"}`, 403},
		{"consume", `{}`, 422}, {"read", ``, 422}, {"wrong", ``, 401},
	} {
		if got := n.do("POST", "/v1/events/tickets", c.body, "Authorization: Bearer "+c.token); got.status != c.want {
			t.Errorf("POST %s by %s: %d, want %d: %s", c.body, c.token, got.status, c.want, got.body)
		}
	}
}

func TestATicketIsForOneSubscriberAndForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNodeWith(t, func(c *api.Config) { c.Events = &memEvents{} }, auth.Static{Name: "back", Token: "back", Scopes: []string{"consume"}})
		make := func() string {
			got := n.do("POST", "/v1/events/tickets", `{"consumer_id":"toto"}`, "Authorization: Bearer back")
			v := mustJSON[api.TicketView](t, got.body)
			if got.status != 201 || v.Subscriber != "toto" || v.URL != "/events?ticket="+v.Ticket || time.Until(v.ExpiresAt) != time.Minute {
				t.Fatalf("%d %s", got.status, got.body)
			}
			return v.Ticket
		}
		use := func(ticket, more string) int { return n.do("HEAD", "/events?ticket="+ticket+more, "").status }
		ticket := make()
		if got := use(ticket, ""); got != 200 {
			t.Errorf("a new ticket: %d", got)
		}
		if got := use(ticket, "&consumer_id=tata"); got != 403 {
			t.Errorf("for another subscriber: %d, want 403", got)
		}
		if got := use(ticket, "&table=other"); got != 403 {
			t.Errorf("for another table: %d, want 403", got)
		}
		for range 30 { // who comes back within a minute may do so for a day
			time.Sleep(59 * time.Second)
			if got := use(ticket, ""); got != 200 {
				t.Fatalf("after a connection: %d", got)
			}
		}
		time.Sleep(61 * time.Second)
		if got := use(ticket, ""); got != 401 {
			t.Errorf("a minute after the last connection: %d, want 401", got)
		}
		unused := make()
		time.Sleep(61 * time.Second)
		if got := use(unused, ""); got != 401 {
			t.Errorf("a ticket that nobody used for a minute: %d, want 401", got)
		}
		old := make()
		for began := time.Now(); time.Since(began) < 24*time.Hour; time.Sleep(50 * time.Second) {
			if got := use(old, ""); got != 200 {
				t.Fatalf("after %s: %d", time.Since(began), got)
			}
		}
		if got := use(old, ""); got != 401 {
			t.Errorf("after a day: %d, want 401", got)
		}
		for _, bad := range []string{"x", "back", ""} {
			if got := use(bad, ""); got != 401 {
				t.Errorf("ticket %q: %d, want 401", bad, got)
			}
		}
	})
}

func TestPagesFollowEventsWhereTheyAreAllowed(t *testing.T) {
	t.Parallel()
	static := auth.Static{Name: "r", Token: "r", Scopes: []string{"read"}}
	few := func(c *api.Config) { c.Origins = []string{"https://app.example.com", "https://*.pages.example"} }
	closed, _, _ := newEvents(t, few, events.Limits{}, static)
	open, _, _ := newEvents(t, nil, events.Limits{})
	all, _, _ := newEvents(t, func(c *api.Config) { c.Origins = []string{"*"} }, events.Limits{}, static)
	openToAll, _, _ := newEvents(t, func(c *api.Config) { c.Origins = []string{"*"} }, events.Limits{})
	for _, c := range []struct {
		n          *node
		header     string
		want       int
		mayRead    bool
		permission string
	}{
		{closed, "Origin: https://app.example.com", 200, true, "allowed"},
		{closed, "Origin: https://a.pages.example", 200, true, "by pattern"},
		{closed, "Origin: https://pages.example", 403, false, "not by pattern"},
		{closed, "Origin: https://evil.example", 403, false, "foreign"},
		{closed, "Origin: http://app.example.com", 403, false, "another scheme"},
		{closed, "Origin: null", 403, false, "no origin"},
		{closed, "Origin: http://127.0.0.1:7300", 200, true, "its own"},
		{closed, "Origin: http://localhost:5173", 403, false, "of the machine, but tokens are asked for"},
		{closed, "Sec-Fetch-Site: cross-site", 403, false, "foreign, without an origin"},
		{closed, "Sec-Fetch-Site: same-origin", 200, false, "its own, without an origin"},
		{open, "Origin: http://localhost:5173", 200, true, "of the machine"},
		{open, "Origin: https://evil.example", 403, false, "foreign"},
		{all, "Origin: https://evil.example", 200, true, "every page"},
		{openToAll, "Origin: https://evil.example", 403, false, "every page, but no token is asked for"},
	} {
		got := c.n.do("HEAD", "/events?consumer_id=toto", "", c.header, "Authorization: Bearer r")
		if c.n == open || c.n == openToAll {
			got = c.n.do("HEAD", "/events?consumer_id=toto", "", c.header)
		}
		if got.status != c.want || (got.header.Get("Access-Control-Allow-Origin") != "") != c.mayRead {
			t.Errorf("%s (%s): %d, %q; want %d", c.header, c.permission, got.status, got.header.Get("Access-Control-Allow-Origin"), c.want)
		}
	}
	asked := closed.do("OPTIONS", "/events", "", "Origin: https://app.example.com", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization,x-consumer-id")
	if asked.status != http.StatusNoContent || asked.header.Get("Access-Control-Allow-Headers") == "" || asked.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("preflight: %d %v", asked.status, asked.header)
	}
	if got := closed.do("OPTIONS", "/events", "", "Origin: https://evil.example", "Access-Control-Request-Method: GET"); got.status != 403 {
		t.Errorf("preflight of a foreign page: %d", got.status)
	}
	// An error that a page may not read looks to it like a broken network.
	if got := closed.do("GET", "/events?consumer_id=toto", "", "Origin: https://app.example.com"); got.status != 401 || got.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("without a token: %d %v", got.status, got.header)
	}
	if got := closed.do("POST", "/v1/events/tickets", `{"consumer_id":"x"}`, "Origin: https://app.example.com", "Authorization: Bearer r"); got.status != 403 {
		t.Errorf("a ticket for a page: %d, want 403: backends make them", got.status)
	}
}
