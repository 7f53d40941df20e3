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

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const pulled = "  - {name: orders, database: app, tables: [public.orders], start: beginning, max_attempts: 1}\n"

func TestWhoMaySeeAndDo(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	admin, reader := n.signedIn(adminToken), n.signedIn(readerToken)

	t.Run("nobody sees a page without a session", func(t *testing.T) {
		for _, path := range []string{"/console/", "/console/consumers"} {
			res := n.get(path, "")
			if res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(res.Header.Get("Location"), "/console/sign-in?next=") {
				t.Errorf("%s: status %d, location %q", path, res.StatusCode, res.Header.Get("Location"))
			}
		}
	})
	t.Run("a cookie that was not made here is none", func(t *testing.T) {
		for _, cookie := range []string{"lockstep_session=abc", strings.TrimSuffix(admin, admin[len(admin)-1:]), "lockstep_session="} {
			if res := n.get("/console/", cookie); res.StatusCode != http.StatusSeeOther {
				t.Errorf("%q: status %d", cookie, res.StatusCode)
			}
		}
	})
	t.Run("a wrong token is told apart, and not shown", func(t *testing.T) {
		res := n.send(http.MethodPost, "/console/sign-in", "", url.Values{"token": {"wrong-token"}}.Encode())
		if text := body(t, res); res.StatusCode != http.StatusUnauthorized || strings.Contains(text, "wrong-token") {
			t.Errorf("status %d: %s", res.StatusCode, text)
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
	t.Run("a reader sees, and what changes something is refused with a word", func(t *testing.T) {
		if res := n.get("/console/", reader); res.StatusCode != http.StatusOK {
			t.Errorf("status %d", res.StatusCode)
		}
		res := n.send(http.MethodPost, "/console/consumers/orders/pause", reader, "back=/console/")
		if res.StatusCode != http.StatusSeeOther {
			t.Fatalf("status %d: %s", res.StatusCode, body(t, res))
		}
		if k, err := n.api.Consumer(t.Context(), "orders"); err != nil || k.Status != "active" {
			t.Errorf("consumer %+v, %v", k, err)
		}
	})
	t.Run("what an administrator does is in the audit, with the name", func(t *testing.T) {
		n.send(http.MethodPost, "/console/consumers/orders/pause", admin, "back=/console/")
		if k, err := n.api.Consumer(t.Context(), "orders"); err != nil || k.Status != "paused" {
			t.Fatalf("consumer %+v, %v", k, err)
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
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("status %d", res.StatusCode)
		}
	})
	t.Run("a session outlives the node", func(t *testing.T) {
		n.stop()
		n.start()
		if res := n.get("/console/", admin); res.StatusCode != http.StatusOK {
			t.Errorf("status %d", res.StatusCode)
		}
	})
}
