package github

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep/sandbox"
)

// request is one call of the API.
type request struct {
	s       *Sandbox
	call    *sandbox.Call
	header  http.Header // of the answer
	method  string
	path    string // as asked, without what a Mount puts before it
	base    string // address of the API as the client knows it
	query   url.Values
	route   *route
	vars    map[string]string
	body    doc
	who     *principal
	now     time.Time
	media   string // text, html or full: how bodies are wanted besides raw
	status  int
	mutates bool
	fault   *sandbox.Fault
}

const graphqlPath = "/graphql"

// serve answers a request of the vendor's routes.
func (s *Sandbox) serve(w http.ResponseWriter, r *http.Request) {
	call := sandbox.CallOf(r.Context())
	q := &request{s: s, call: call, header: w.Header(), method: r.Method, path: strings.TrimSuffix(r.URL.Path, "/"), query: r.URL.Query(), fault: call.Spoiled()}
	q.now = s.core.Clock().Now().UTC()
	if q.method == http.MethodHead {
		q.method = http.MethodGet
	}
	q.base = baseOf(r)
	call.RequestID = s.requestID()
	h := q.header
	h.Set("X-GitHub-Request-Id", call.RequestID)
	h.Set("X-GitHub-Media-Type", "github.v3; format=json")
	h.Set("Access-Control-Expose-Headers", "ETag, Link, Location, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Used, X-RateLimit-Resource, X-RateLimit-Reset, X-Poll-Interval, X-GitHub-Media-Type, X-GitHub-Request-Id")
	if r.UserAgent() == "" {
		sandbox.WriteBody(w, http.StatusForbidden, "text/html", []byte("Request forbidden by administrative rules. Please make sure your request has a User-Agent header "+
			"(https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required). Check https://developer.github.com for other possible causes.\n"))
		return
	}
	body, err := q.answer(r)
	switch {
	case err != nil && q.path == graphqlPath && err.Status == http.StatusOK:
		body, q.status = sandbox.Encode(doc{"errors": []any{doc{"type": err.Kind, "message": err.Message}}}), http.StatusOK
	case err != nil:
		if err.Location != "" {
			h.Set("Location", err.Location)
		}
		body, q.status = err.body(), err.Status
	}
	if q.who != nil {
		q.tell()
	}
	if q.status == http.StatusNoContent || q.status == http.StatusNotModified || body == nil {
		w.WriteHeader(max(q.status, http.StatusNoContent))
		return
	}
	sandbox.WriteBody(w, q.status, jsonType, body)
}

// baseOf is the API's address in the client's words: what the Host header says, and what
// Mount took off the path.
func baseOf(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	whole, _, _ := strings.Cut(r.RequestURI, "?")
	prefix, _ := strings.CutSuffix(whole, r.URL.EscapedPath())
	if prefix == whole {
		prefix = ""
	}
	return scheme + "://" + r.Host + prefix
}

func (s *Sandbox) requestID() string {
	n := s.requests.Add(1)
	d := s.options.Seed.Dice("request", n)
	return fmt.Sprintf("%04X:%06X:%X", n&0xffff, d.Int(1<<24), d.Uint64()>>24)
}

// answer signs in, asks the limiter and runs the route.
func (q *request) answer(r *http.Request) ([]byte, *Error) {
	if err := q.negotiate(r); err != nil {
		return nil, err
	}
	var err *Error
	if q.who, err = q.signIn(r); err != nil {
		q.who = nil
		return nil, err
	}
	q.call.Account = q.who.name
	if q.path == graphqlPath {
		return q.graphql(r)
	}
	q.find(r)
	if err := q.readBody(r); err != nil {
		return nil, err
	}
	if q.fault != nil && q.fault.Kind == faultStep {
		q.s.core.Step(max(q.fault.N, 1))
	}
	if tag := r.Header.Get("If-None-Match"); tag != "" && q.method == http.MethodGet {
		return q.conditional(tag)
	}
	cost := 1.0
	if q.path == "/rate_limit" {
		cost = 0
	}
	leave, err := q.admit(cost)
	defer leave()
	if err != nil {
		return nil, err
	}
	body, err := q.run()
	if err == nil && q.method == http.MethodGet {
		q.header.Set("ETag", etag(body, q.header.Get("Link")))
	}
	return body, err
}

// conditional answers a request with If-None-Match, which costs nothing of the primary
// limit when all is as it was.
func (q *request) conditional(tag string) ([]byte, *Error) {
	if _, enforced := q.s.core.Limits().Limits(); enforced && q.standing(q.primary()).Remaining < 1 {
		q.call.Limited = q.primary()
		return nil, q.exhausted()
	}
	leave, err := q.admit(0)
	defer leave()
	if err != nil {
		return nil, err
	}
	body, err := q.run()
	if err == nil {
		have := etag(body, q.header.Get("Link"))
		q.header.Set("ETag", have)
		if strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(have, "W/") {
			q.status = http.StatusNotModified
			return nil, nil
		}
	}
	free, refused := q.s.core.Limits().Enter(time.Now(), sandbox.Charge{Limit: q.primary(), Key: q.who.name})
	free()
	if refused != nil {
		q.call.Limited = refused.Limit.Name
		return nil, q.exhausted()
	}
	return body, err
}

func etag(body []byte, link string) string {
	h := fnv.New128a()
	_, _ = h.Write(body) // never fails
	_, _ = h.Write([]byte(link))
	return fmt.Sprintf(`W/"%x"`, h.Sum(nil))
}

// run calls the route's handler and renders what it returns.
func (q *request) run() ([]byte, *Error) {
	if q.route == nil {
		return nil, notFound()
	}
	if q.method == http.MethodGet {
		q.s.mu.RLock()
		defer q.s.mu.RUnlock()
	} else {
		q.s.mu.Lock()
		defer q.s.mu.Unlock()
	}
	q.status = http.StatusOK
	v, err := q.route.handle(q)
	if err != nil || v == nil {
		return nil, err
	}
	return sandbox.Encode(v), nil
}

// versions of the API that are served. They differ in nothing that is simulated.
func versions() []string { return []string{"2022-11-28", "2026-03-10"} }

// negotiate checks the headers that say what is wanted.
func (q *request) negotiate(r *http.Request) *Error {
	version := r.Header.Get("X-GitHub-Api-Version")
	if version == "" {
		version = versions()[0]
	}
	if !slices.Contains(versions(), version) {
		return &Error{Status: http.StatusBadRequest, Message: fmt.Sprintf("%q is not a supported version. Supported versions are %s.", version, strings.Join(versions(), ", "))}
	}
	q.call.Version = version
	q.header.Set("X-GitHub-Api-Version-Selected", version)
	accept := r.Header.Get("Accept")
	if accept == "" || q.path == graphqlPath {
		return nil
	}
	for one := range strings.SplitSeq(accept, ",") {
		one, _, _ = strings.Cut(strings.TrimSpace(one), ";")
		if one == "*/*" || one == "application/*" || one == "application/json" {
			return nil
		}
		if kind, ok := strings.CutPrefix(one, "application/vnd.github"); ok {
			for _, media := range []string{"text", "html", "full"} {
				if strings.Contains(kind, "."+media) {
					q.media = media
				}
			}
			return nil
		}
	}
	return &Error{Status: http.StatusUnsupportedMediaType, Message: fmt.Sprintf("Unsupported 'Accept' header: %q. Must accept 'application/json'.", accept)}
}

// find finds the route. Repositories and organizations may be named by number.
func (q *request) find(r *http.Request) {
	path := strings.TrimSuffix(r.URL.EscapedPath(), "/")
	parts := strings.Split(path, "/")
	if len(parts) > 2 && (parts[1] == "repositories" || parts[1] == "organizations") {
		n, err := strconv.ParseInt(parts[2], 10, 64)
		q.s.mu.RLock()
		found, org := q.s.byID[n], q.s.org
		q.s.mu.RUnlock()
		switch {
		case err == nil && parts[1] == "organizations" && n == org.id:
			path = "/orgs/" + org.login + strings.Join(append([]string{""}, parts[3:]...), "/")
		case err == nil && parts[1] == "repositories" && found != nil && found.now != nil:
			path = "/repos/" + found.now.fullName() + strings.Join(append([]string{""}, parts[3:]...), "/")
		default:
			q.call.Endpoint = q.method + " /" + parts[1] + "/{id}"
			return
		}
	}
	q.path = path
	if q.route, q.vars = q.s.router.find(q.method, path); q.route != nil {
		q.call.Endpoint = q.route.method + " " + q.route.pattern
	}
}

// readBody reads a write's JSON.
func (q *request) readBody(r *http.Request) *Error {
	if q.method == http.MethodGet {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, 10<<20))
	if err != nil {
		return &Error{Status: http.StatusBadRequest, Message: "Problems parsing JSON"}
	}
	q.body = doc{}
	if len(raw) == 0 {
		return nil
	}
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return &Error{Status: http.StatusBadRequest, Message: "Problems parsing JSON"}
	}
	// Some routes take a bare list, such as one of labels.
	if list, ok := v.([]any); ok {
		q.body["labels"] = list
		return nil
	}
	d, ok := v.(doc)
	if !ok {
		return &Error{Status: http.StatusBadRequest, Message: "Body should be a JSON object"}
	}
	q.body = d
	return nil
}

// faultKinds are what this API does wrong on demand, besides what any can.
func faultKinds() map[string]string {
	return map[string]string{
		faultStep:      "n things (default 1) happen before the answer, between two pages for example",
		faultStuck:     "a list whose next page is itself",
		faultShort:     "a page with n objects less (default half) that goes on behind them",
		faultDuplicate: "a page whose last object comes twice",
		faultPartial:   "GraphQL: half of the data, and errors, with status 200",
	}
}

const (
	faultStep      = "step"
	faultStuck     = "list_stuck"
	faultShort     = "list_short"
	faultDuplicate = "list_duplicate"
	faultPartial   = "graphql_partial"
)
