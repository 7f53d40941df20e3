package stripe_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"lockstep/sandbox/stripe"
)

const (
	testKey = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
	newest  = "2026-10-28.endive"
)

type object = map[string]any

// account is a simulated account behind a real server.
type account struct {
	*stripe.Sandbox
	t      testing.TB
	url    string
	client *http.Client
}

// open makes an account; its world stands still and has no limits unless options say so.
func open(t testing.TB, options stripe.Options) *account {
	t.Helper()
	s, err := stripe.New(options)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return &account{Sandbox: s, t: t, url: server.URL, client: server.Client()}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   object
	text   string
}

type header map[string]string

func (a *account) do(method, path, form string, headers header) answer {
	a.t.Helper()
	var body io.Reader
	if form != "" {
		body = strings.NewReader(form)
	}
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	r.Header.Set("Stripe-Version", newest)
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w, err := a.client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	out := answer{status: w.StatusCode, header: w.Header, text: string(text)}
	_ = json.Unmarshal(text, &out.body)
	return out
}

// get returns the answer of a GET that must succeed.
func (a *account) get(path string) object { a.t.Helper(); return a.must("GET", path, "") }

// post returns the answer of a POST that must succeed.
func (a *account) post(path, form string) object { a.t.Helper(); return a.must("POST", path, form) }

func (a *account) must(method, path, form string) object {
	a.t.Helper()
	w := a.do(method, path, form, nil)
	if w.status != http.StatusOK {
		a.t.Fatalf("%s %s %s: %d %s", method, path, form, w.status, w.text)
	}
	return w.body
}

// refused returns the error of a request that must fail with a status.
func (a *account) refused(status int, method, path, form string) object {
	a.t.Helper()
	w := a.do(method, path, form, nil)
	if w.status != status {
		a.t.Fatalf("%s %s %s: %d %s, want %d", method, path, form, w.status, w.text, status)
	}
	e, ok := w.body["error"].(object)
	if !ok {
		a.t.Fatalf("%s %s: no error in %s", method, path, w.text)
	}
	return e
}

// all pages through a list and returns the objects, as a client does.
func (a *account) all(path string) []object {
	a.t.Helper()
	var all []object
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	for after := ""; ; {
		page := a.get(path + join + "limit=100" + after)
		for _, one := range page["data"].([]any) {
			all = append(all, one.(object))
		}
		if page["has_more"] != true {
			return all
		}
		after = "&starting_after=" + url.QueryEscape(all[len(all)-1]["id"].(string))
	}
}

func ids(objects []object) []string {
	list := make([]string, 0, len(objects))
	for _, o := range objects {
		list = append(list, o["id"].(string))
	}
	return list
}

func data(list object) []object {
	var objects []object
	for _, one := range list["data"].([]any) {
		objects = append(objects, one.(object))
	}
	return objects
}
