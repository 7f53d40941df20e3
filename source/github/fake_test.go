package github_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

type object = map[string]any

// hub is a small GitHub: repositories with issues and pull requests. Page addresses
// are by number of the repository, as GitHub's are.
type hub struct {
	mu      sync.Mutex
	repos   []object
	issues  map[string][]object // by repository
	pulls   map[string][]object
	hidden  map[string]bool
	next    int
	answers map[int]int // how many of each status
	graphql string      // what GraphQL answers instead
}

func newHub(t testing.TB) (*hub, string) {
	t.Helper()
	h := &hub{issues: map[string][]object{}, pulls: map[string][]object{}, hidden: map[string]bool{}, answers: map[int]int{}, next: 1_785_067_840}
	for i := range 3 {
		name := fmt.Sprintf("repo%d", i)
		h.repos = append(h.repos, object{"id": 1000 + i, "name": name, "full_name": "acme/" + name, "owner": object{"login": "acme"}, "updated_at": stamp(), "created_at": stamp()})
		for range 120 * i {
			h.add("acme/" + name)
		}
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return h, server.URL
}

func stamp() string { return time.Now().UTC().Format(time.RFC3339) }

// add makes an issue and a pull request, which is an issue as well. The caller holds
// mu, or nobody else knows the hub.
func (h *hub) add(repo string) {
	h.next++
	n := len(h.issues[repo]) + 1
	h.issues[repo] = append(h.issues[repo], object{"id": h.next, "number": n, "title": "t", "state": "closed", "created_at": stamp(), "updated_at": stamp()})
	h.next++
	h.issues[repo] = append(h.issues[repo], object{"id": h.next + 1<<40, "number": n + 1, "title": "p", "pull_request": object{}, "created_at": stamp(), "updated_at": stamp()})
	h.pulls[repo] = append(h.pulls[repo], object{"id": fmt.Sprintf("PR_%d", h.next), "fullDatabaseId": strconv.Itoa(h.next), "number": n + 1, "title": "p", "state": "OPEN", "createdAt": stamp(), "updatedAt": stamp()})
}

// change makes and edits something in each repository.
func (h *hub) change(testing.TB) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.repos {
		repo := r["full_name"].(string)
		h.add(repo)
		list, pulls := h.issues[repo], h.pulls[repo]
		list[h.next%len(list)]["title"], list[h.next%len(list)]["updated_at"] = fmt.Sprint(h.next), stamp()
		pulls[h.next%len(pulls)]["title"], pulls[h.next%len(pulls)]["updatedAt"] = fmt.Sprint(h.next), stamp()
	}
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	status, body := h.answer(w, r)
	tag := fmt.Sprintf(`W/"%x"`, len(body)*31+int(hash(body)))
	if r.Method == http.MethodGet && status == 200 {
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			status, body = 304, nil
		}
	}
	h.answers[status]++
	w.Header().Set("X-RateLimit-Remaining", "4000")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func hash(b []byte) (h uint32) {
	for _, c := range b {
		h = h*16777619 ^ uint32(c)
	}
	return h
}

func (h *hub) answer(w http.ResponseWriter, r *http.Request) (int, []byte) {
	if r.Header.Get("User-Agent") == "" || r.Header.Get("Authorization") != "Bearer ghp_secret1" {
		return 401, []byte(`{"message":"Bad credentials"}`)
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/user":
		return 200, []byte(`{"login":"ana"}`)
	case r.URL.Path == "/user/repos":
		return 200, page(w, r, h.visible())
	case r.URL.Path == "/graphql":
		return 200, h.query(r)
	case parts[0] == "repositories" && len(parts) == 2:
		for _, one := range h.visible() {
			if fmt.Sprint(one["id"]) == parts[1] {
				return 200, encode(one)
			}
		}
	case parts[0] == "repositories":
		n, _ := strconv.Atoi(parts[1])
		return h.list(w, r, h.repos[n-1000]["full_name"].(string))
	case len(parts) == 4 && parts[3] == "issues":
		return h.list(w, r, parts[1]+"/"+parts[2])
	}
	return 404, []byte(`{"message":"Not Found"}`)
}

func (h *hub) visible() []object {
	return slices.DeleteFunc(slices.Clone(h.repos), func(o object) bool { return h.hidden[o["full_name"].(string)] })
}

func (h *hub) list(w http.ResponseWriter, r *http.Request, repo string) (int, []byte) {
	if h.hidden[repo] {
		return 404, []byte(`{"message":"Not Found"}`)
	}
	found := slices.Clone(h.issues[repo])
	by := r.URL.Query().Get("sort") + "_at"
	slices.SortStableFunc(found, func(a, b object) int { return cmp.Compare(a[by].(string), b[by].(string)) })
	if r.URL.Query().Get("direction") == "desc" {
		slices.Reverse(found)
	}
	return 200, page(w, r, found)
}

func page(w http.ResponseWriter, r *http.Request, all []object) []byte {
	q := r.URL.Query()
	n, _ := strconv.Atoi(q.Get("page"))
	size, _ := strconv.Atoi(q.Get("per_page"))
	n = max(n, 1)
	if n*size < len(all) {
		q.Set("page", strconv.Itoa(n+1))
		path := r.URL.Path
		if parts := strings.Split(path, "/"); len(parts) == 5 {
			path = "/repositories/" + strings.Replace(parts[3], "repo", "100", 1) + "/" + parts[4]
		}
		w.Header().Add("Link", fmt.Sprintf(`<http://%s%s?%s>; rel="next", <http://%s/last>; rel="last"`, r.Host, path, q.Encode(), r.Host))
	}
	return encode(all[min(len(all), (n-1)*size):min(len(all), n*size)])
}

func (h *hub) query(r *http.Request) []byte {
	if h.graphql != "" {
		return []byte(h.graphql)
	}
	var q struct {
		Variables struct {
			Owner, Name, Cursor, By, Direction string
			N                                  int
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		return encode(object{"errors": []object{{"message": err.Error()}}})
	}
	v := q.Variables
	repo := v.Owner + "/" + v.Name
	if h.hidden[repo] {
		return encode(object{"data": object{"repository": nil}, "errors": []object{{"type": "NOT_FOUND", "message": "Could not resolve"}}})
	}
	found := slices.Clone(h.pulls[repo])
	by := map[string]string{"CREATED_AT": "createdAt", "UPDATED_AT": "updatedAt"}[v.By]
	slices.SortStableFunc(found, func(a, b object) int { return cmp.Compare(a[by].(string), b[by].(string)) })
	if v.Direction == "DESC" {
		slices.Reverse(found)
	}
	from, _ := strconv.Atoi(v.Cursor)
	to := min(len(found), from+v.N)
	return encode(object{"data": object{"repository": object{"pullRequests": object{
		"nodes": append([]object{}, found[min(from, to):to]...), "pageInfo": object{"hasNextPage": to < len(found), "endCursor": strconv.Itoa(to)},
	}}}})
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// truth is what the hub holds, as the mirror shows it.
func (h *hub) truth(_ testing.TB, collection string) map[string]json.RawMessage {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]json.RawMessage{}
	for _, r := range h.repos {
		repo := r["full_name"].(string)
		switch collection {
		case "repository":
			out[fmt.Sprint(r["id"])] = encode(r)
		case "issue":
			for _, o := range h.issues[repo] {
				if o["pull_request"] == nil {
					out[fmt.Sprint(o["id"])] = with(o, "repository_id", r["id"])
				}
			}
		case "pull_request":
			for _, o := range h.pulls[repo] {
				out[fmt.Sprint(o["fullDatabaseId"])] = with(o, "repositoryId", r["id"])
			}
		}
	}
	return out
}

func with(o object, name string, v any) json.RawMessage {
	full := object{name: v}
	maps.Copy(full, o)
	return encode(full)
}
