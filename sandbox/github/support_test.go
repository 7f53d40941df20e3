package github_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"lockstep/sandbox/github"
)

const token = "ghp_0123456789abcdef"

type object = map[string]any

// hub is a simulated GitHub behind a real server.
type hub struct {
	*github.Sandbox
	t      testing.TB
	url    string
	client *http.Client
}

// open makes a GitHub; its world stands still and has no limits unless options say so.
func open(t testing.TB, options github.Options) *hub {
	t.Helper()
	s, err := github.New(options)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &hub{Sandbox: s, t: t, url: server.URL, client: client}
}

// answer is what came back; v is the decoded body.
type answer struct {
	status int
	header http.Header
	v      any
	text   string
}

func (a answer) object() object { o, _ := a.v.(object); return o }

func (a answer) list() []object {
	list, _ := a.v.([]any)
	out := make([]object, 0, len(list))
	for _, one := range list {
		out = append(out, one.(object))
	}
	return out
}

type header map[string]string

func (h *hub) do(method, path, body string, headers header) answer {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "application/vnd.github+json")
	for name, value := range headers {
		r.Header.Set(name, value)
		if value == "" {
			r.Header[name] = []string{""}
		}
	}
	w, err := h.client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	out := answer{status: w.StatusCode, header: w.Header, text: string(text)}
	_ = json.Unmarshal(text, &out.v)
	for _, problem := range judge(h.t, method, path, out) {
		h.t.Errorf("%s %s: %s", method, path, problem)
	}
	return out
}

// want sends a request that must be answered with a status.
func (h *hub) want(status int, method, path, body string) answer {
	h.t.Helper()
	w := h.do(method, path, body, nil)
	if w.status != status {
		h.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, w.status, w.text, status)
	}
	return w
}

func (h *hub) get(path string) answer { h.t.Helper(); return h.want(http.StatusOK, "GET", path, "") }

var nextForm = regexp.MustCompile(`<([^>]*)>; rel="next"`)

// next is the path of the next page, or "".
func (h *hub) next(w answer) string {
	m := nextForm.FindStringSubmatch(w.header.Get("Link"))
	if m == nil {
		return ""
	}
	return strings.TrimPrefix(m[1], h.url)
}

// all follows the Link header and returns the objects.
func (h *hub) all(path string) []object {
	h.t.Helper()
	var all []object
	for path != "" {
		w := h.get(path)
		all = append(all, w.list()...)
		path = h.next(w)
	}
	return all
}

// query asks GraphQL and returns data and errors.
func (h *hub) query(text string, variables object) (object, []any) {
	h.t.Helper()
	body, err := json.Marshal(object{"query": text, "variables": variables})
	if err != nil {
		h.t.Fatal(err)
	}
	w := h.want(http.StatusOK, "POST", "/graphql", string(body))
	data, _ := w.object()["data"].(object)
	errs, _ := w.object()["errors"].([]any)
	return data, errs
}

// truth returns the records of a collection by id.
func (h *hub) truth(collection string) map[string]object {
	h.t.Helper()
	rows, ok := h.Records(collection)
	if !ok {
		h.t.Fatalf("there is no collection %s", collection)
	}
	out := map[string]object{}
	for id, body := range rows {
		var o object
		if err := json.Unmarshal(body, &o); err != nil {
			h.t.Fatal(err)
		}
		out[id] = o
	}
	return out
}

// first is the first repository's full name.
func (h *hub) first() string {
	h.t.Helper()
	return h.get("/orgs/acme/repos?sort=full_name").list()[0]["full_name"].(string)
}
