package console_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// signedIn returns the cookie of a session.
func (n *node) signedIn(token string) string {
	n.t.Helper()
	res := n.send(http.MethodPost, "/console/sign-in", "", url.Values{"token": {token}}.Encode())
	if res.StatusCode != http.StatusSeeOther || len(res.Cookies()) != 1 {
		n.t.Fatalf("signing in: status %d, cookies %v", res.StatusCode, res.Cookies())
	}
	c := res.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/console/" {
		n.t.Errorf("cookie %+v", c)
	}
	if strings.Contains(c.Value, token) {
		n.t.Error("the cookie shows the token")
	}
	return c.Name + "=" + c.Value
}

func body(t testing.TB, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const pulled = "  - {name: orders, database: app, tables: [public.orders], start: beginning, max_attempts: 1}\n"

func TestWhoComesIn(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	admin := n.signedIn(adminToken)

	t.Run("nobody sees a page without a session", func(t *testing.T) {
		for _, path := range []string{"/console/", "/console/consumers", "/console/databases/app"} {
			res := n.get(path, "")
			if res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(res.Header.Get("Location"), "/console/sign-in?next=") {
				t.Errorf("%s: status %d, location %q", path, res.StatusCode, res.Header.Get("Location"))
			}
		}
	})
	t.Run("a cookie that was not made here is none", func(t *testing.T) {
		for _, cookie := range []string{"lockstep_session=abc", admin[:len(admin)-1], "lockstep_session="} {
			if res := n.get("/console/", cookie); res.StatusCode != http.StatusSeeOther {
				t.Errorf("%q: status %d", cookie, res.StatusCode)
			}
		}
	})
	t.Run("signing in leads to pages of the console only", func(t *testing.T) {
		for next, want := range map[string]string{
			"https://evil.example/": "/console/", "//evil.example/console/": "/console/", "/console/\\evil": "/console/", "/console/stream?x=1": "/console/stream?x=1",
		} {
			res := n.send(http.MethodPost, "/console/sign-in", "", url.Values{"token": {adminToken}, "next": {next}}.Encode())
			if got := res.Header.Get("Location"); got != want {
				t.Errorf("%q leads to %q, want %q", next, got, want)
			}
		}
	})
	t.Run("a session outlives the node", func(t *testing.T) {
		n.stop()
		n.start()
		if res := n.get("/console/", admin); res.StatusCode != http.StatusOK {
			t.Errorf("status %d", res.StatusCode)
		}
	})
	t.Run("a wrong token is told apart, not shown, and not tried for ever", func(t *testing.T) {
		wrong := url.Values{"token": {"wrong-token"}}.Encode()
		res := n.send(http.MethodPost, "/console/sign-in", "", wrong)
		if text := body(t, res); res.StatusCode != http.StatusUnauthorized || strings.Contains(text, "wrong-token") {
			t.Errorf("status %d: %s", res.StatusCode, text)
		}
		for range 20 {
			res = n.send(http.MethodPost, "/console/sign-in", "", wrong)
		}
		if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
			t.Errorf("after many wrong tokens: status %d, %v", res.StatusCode, res.Header)
		}
	})
}

func TestWhoMayDo(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	admin, reader := n.signedIn(adminToken), n.signedIn(readerToken)
	status := func() string {
		k, err := n.api.Consumer(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		return k.Status
	}

	t.Run("a reader sees, and what changes something is refused with a word", func(t *testing.T) {
		if res := n.get("/console/", reader); res.StatusCode != http.StatusOK {
			t.Errorf("status %d", res.StatusCode)
		}
		res := n.send(http.MethodPost, "/console/consumers/orders/pause", reader, "back=/console/")
		if res.StatusCode != http.StatusSeeOther || status() != "active" {
			t.Fatalf("status %d, the consumer is %s", res.StatusCode, status())
		}
		for _, c := range res.Cookies() {
			reader += "; " + c.Name + "=" + c.Value
		}
		if text := body(t, n.get("/console/", reader)); !strings.Contains(text, `class="notice failed"`) {
			t.Errorf("the page says nothing of it: %s", text)
		}
	})
	t.Run("what an administrator does is in the audit, with the name", func(t *testing.T) {
		n.send(http.MethodPost, "/console/consumers/orders/pause", admin, "back=/console/")
		if status() != "paused" {
			t.Fatalf("the consumer is %s", status())
		}
		if text := body(t, n.get("/console/audit", admin)); !strings.Contains(text, "consumer.pause") || !strings.Contains(text, "admin") {
			t.Errorf("the audit shows %s", text)
		}
	})
	t.Run("pages of other sites change nothing", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/console/consumers/orders/resume", strings.NewReader("back=/console/"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", admin)
		req.Header.Set("Origin", "https://evil.example")
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusForbidden || status() != "paused" {
			t.Errorf("status %d, the consumer is %s", res.StatusCode, status())
		}
	})
}
