package torture_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/config"
)

// call calls the node's HTTP API, for what the client has no method for.
func (n *node) call(method, path, body string) (status int, answer string) {
	n.t.Helper()
	cfg, err := config.Load(n.file, config.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+cfg.Listen+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	response, err := c.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// needs skips the rest of a case when the node's API has no such path.
func (n *node) needs(t *testing.T, path string) {
	t.Helper()
	_, document := n.call(http.MethodGet, "/openapi.json", "")
	var api struct{ Paths map[string]any }
	if err := json.Unmarshal([]byte(document), &api); err != nil {
		t.Fatal(err)
	}
	if api.Paths[path] == nil {
		t.Skip("this node has no " + path + ": backfills are not wired into the engine yet")
	}
}

// repair is the last part of the cases that end in a gap: one command, and after
// it the stream gives the tables again, with what was deleted unseen.
func (n *node) repair(t *testing.T) {
	t.Run("repair", func(t *testing.T) {
		n.needs(t, "/v1/databases/{name}/gaps/backfill")
		if status, answer := n.call(http.MethodPost, "/v1/databases/app/gaps/backfill", ""); status != http.StatusCreated {
			t.Fatalf("%d %s", status, answer)
		}
		n.until("the end of the gap", func(c client.Change) bool { g, ok := gapOf(c); return ok && g.State == "end" })
		n.check(terms{})
	})
}

// says waits until the node says that its database is not well, and why.
func (n *node) says(text string) {
	n.t.Helper()
	d := n.database()
	if d.Status == "ok" || !strings.Contains(d.Reason, text) {
		n.t.Errorf("the database is %s: %q, want a warning that says %q", d.Status, d.Reason, text)
	}
}
