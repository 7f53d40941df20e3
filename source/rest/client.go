package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lockstep/source"
)

// answer is a whole answer.
type answer struct {
	status int
	header http.Header
	body   json.RawMessage
	valid  bool // body is JSON
	at     time.Time
	url    *url.URL // that answered
	moved  bool     // after a redirect
}

// call is one request with what it is filled from.
type call struct {
	what    string // for errors: what is being done
	request *Request
	scope   *scope
	url     string            // given by the API; empty: made from the request
	extra   map[string]string // parameters of paging and passes
	number  string            // the parameter in extra that is a number: the page's size
	etag    string
	data    json.RawMessage // of a write
	header  map[string]string
	write   bool
	safe    bool // a write that has no second effect when it is repeated
	open    bool // the request that gets a token: goes out without one
}

const maxRedirects = 5

var (
	errSkip  = errors.New("the API has nothing there, and the spec says to go on")
	errEmpty = errors.New("the API has nothing there")
	errSplit = errors.New("the request is too large")
)

// do sends the call and returns a successful answer, or a *source.Error. What is a part
// of something larger is asked for some times, so that one failure of a hundred
// requests does not make all of them be repeated.
func (s *Source) do(ctx context.Context, c call) (*answer, error) {
	pause := insistPause
	for tries := 1; ; tries++ {
		a, err := s.attempt(ctx, c)
		e, ok := asError(err)
		if !ok || !e.Retryable() || e.After > insistPause<<insistTries || !insisting(ctx) || tries == insistTries {
			return a, err
		}
		timer := time.NewTimer(max(pause, e.After))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return a, err
		}
		pause *= 2
	}
}

const (
	// insistTries is how often a part is asked for, insistPause the first pause between.
	insistTries = 4
	insistPause = 100 * time.Millisecond
)

type insistKey struct{}

// insist marks what is asked for as part of something larger.
func insist(ctx context.Context) context.Context { return context.WithValue(ctx, insistKey{}, true) }

func insisting(ctx context.Context) bool { return ctx.Value(insistKey{}) != nil }

// attempt is do once. A token that is refused is refreshed once.
func (s *Source) attempt(ctx context.Context, c call) (*answer, error) {
	token, err := s.token(ctx, c)
	if err != nil {
		return nil, err
	}
	a, v, err := s.once(ctx, c, token)
	if err == nil && v.then == "refresh" && !c.open && s.auth.canRefresh() {
		if token, err = s.auth.refresh(ctx, s, token); err != nil {
			return nil, err
		}
		a, v, err = s.once(ctx, c, token)
	}
	if err != nil {
		return nil, err
	}
	if v.then == "" {
		return a, nil
	}
	e := s.refusal(c.what, a, v)
	switch v.then {
	case "skip":
		e.Err = errSkip
	case "empty":
		e.Err = errEmpty
	case "split":
		e.Err = errSplit
	}
	return a, e
}

func (s *Source) token(ctx context.Context, c call) (string, error) {
	if c.open {
		return "", nil
	}
	return s.auth.current(ctx, s)
}

// once sends the call, follows redirects within the host and judges the answer.
func (s *Source) once(ctx context.Context, c call, token string) (*answer, verdict, error) {
	target, err := s.target(c)
	if err != nil {
		return nil, verdict{}, &source.Error{Kind: source.Invalid, Message: s.redact(fmt.Sprintf("%s: %v", c.what, err)), Err: err}
	}
	buckets, cost := s.charges(c)
	for hop := range maxRedirects {
		var a *answer
		if a, err = s.send(ctx, c, target, token, buckets, cost); err != nil {
			return nil, verdict{}, err
		}
		a.moved = hop > 0
		if !redirects(a.status) || c.write || a.header.Get("Location") == "" {
			v := s.judge(c.request, a, s.clock.now())
			s.penalize(v, buckets)
			return a, v, s.content(c, a, v)
		}
		if target, err = s.follow(target, a.header.Get("Location")); err != nil {
			return nil, verdict{}, &source.Error{Kind: source.Failed, Status: a.status, Message: s.redact(fmt.Sprintf("%s: %v", c.what, err)), Err: err}
		}
	}
	return nil, verdict{}, &source.Error{Kind: source.Failed, Message: c.what + ": too many redirects; check base_url"}
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// content refuses a success that is no JSON: a page of a proxy, or nothing.
func (s *Source) content(c call, a *answer, v verdict) error {
	if v.then != "" || a.valid || a.status == http.StatusNotModified || c.write && len(bytes.TrimSpace(a.body)) == 0 {
		return nil
	}
	said := "no JSON"
	switch {
	case looksLikeHTML(a.body):
		said = "an HTML page"
	case len(bytes.TrimSpace(a.body)) == 0:
		said = "nothing"
	}
	kind := source.Retry
	if c.write {
		kind = source.Unknown
	}
	return &source.Error{Kind: kind, Status: a.status, Message: fmt.Sprintf("%s: %s answered %d with %s; is base_url right?", c.what, s.name(), a.status, said)}
}

// charges returns the names of the buckets of a call and what it costs.
func (s *Source) charges(c call) (names []string, cost float64) {
	declared := c.request.Buckets
	if declared == nil {
		declared = s.spec.Buckets
	}
	for _, name := range declared {
		if b := s.spec.Limits[name]; b != nil && b.Each == "path" {
			name += ":" + c.request.Path.shape()
		}
		names = append(names, name)
	}
	if cost = c.request.Cost; cost == 0 {
		cost = 1
	}
	return names, cost
}

// shape is a path without what fills it: the name of an endpoint.
func (t Template) shape() string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.root == "" {
			b.WriteString(p.text)
			continue
		}
		b.WriteString("*")
	}
	return b.String()
}

func (s *Source) penalize(v verdict, buckets []string) {
	if v.then != "limited" || s.limiter == nil {
		return
	}
	for _, name := range buckets {
		base, _, _ := strings.Cut(name, ":")
		if v.bucket != "" && v.bucket != base {
			continue
		}
		after := v.after
		if b := s.spec.Limits[base]; b != nil && after == 0 {
			after = b.Penalty
		}
		if after == 0 {
			after = time.Second
		}
		s.limiter.Penalize(name, after)
	}
}

// send is one request on the wire.
func (s *Source) send(ctx context.Context, c call, target *url.URL, token string, buckets []string, cost float64) (*answer, error) {
	release := func(*http.Response) {}
	if s.limiter != nil {
		var err error
		if release, err = s.limiter.Wait(ctx, buckets, source.PriorityOf(ctx), cost); err != nil { //nolint:bodyclose // release is told of an answer; who asked closes it
			return nil, fmt.Errorf("%s: wait for the limit: %w", c.what, err)
		}
	}
	var response *http.Response
	defer func() { release(response) }()
	timed, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	request, err := s.build(timed, c, target, token)
	if err != nil {
		return nil, &source.Error{Kind: source.Invalid, Message: s.redact(fmt.Sprintf("%s: %v", c.what, err)), Err: err}
	}
	began := time.Now()
	response, err = s.transport.RoundTrip(request)
	if err != nil {
		return nil, s.broken(ctx, c, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, s.maxBody+1))
	if err != nil {
		return nil, s.broken(ctx, c, err)
	}
	if int64(len(body)) > s.maxBody {
		return nil, &source.Error{Kind: source.Failed, Status: response.StatusCode, Message: fmt.Sprintf("%s: the answer of %s is larger than %d bytes; ask for smaller pages or raise max_body", c.what, s.name(), s.maxBody)}
	}
	a := &answer{status: response.StatusCode, header: response.Header, body: body, valid: json.Valid(body)}
	a.url = target
	a.at = s.clock.learn(began, response.Header.Get("Date"))
	return a, nil
}

// broken is the error for a request without a whole answer.
func (s *Source) broken(ctx context.Context, c call, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s: %w", c.what, cause)
	}
	kind := source.Retry
	if c.write {
		kind = source.Unknown
		if c.safe {
			kind = source.Retry
		}
	}
	reason := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		reason = fmt.Sprintf("no whole answer within %s", s.timeout)
	}
	what := "did not answer as a whole"
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		what = "cannot be reached"
	}
	return &source.Error{Kind: kind, Message: s.redact(fmt.Sprintf("%s: %s %s: %s", c.what, s.name(), what, reason)), Err: err}
}

func (s *Source) build(ctx context.Context, c call, target *url.URL, token string) (*http.Request, error) {
	body, kind, err := s.body(c)
	if err != nil {
		return nil, err
	}
	method := c.request.Method
	if method == "" {
		method = http.MethodGet
		if body != nil {
			method = http.MethodPost
		}
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), reader)
	if err != nil {
		return nil, errors.New("the address cannot be asked")
	}
	request.Header.Set("User-Agent", "lockstep")
	request.Header.Set("Accept", "application/json")
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	for _, headers := range []map[string]Template{s.spec.Headers, c.request.Headers} {
		for name, t := range headers {
			if v := t.fill(c.scope); v != "" {
				request.Header.Set(name, v)
			}
		}
	}
	if c.etag != "" {
		request.Header.Set("If-None-Match", c.etag)
	}
	for name, v := range c.header {
		request.Header.Set(name, v)
	}
	if !c.open {
		s.auth.sign(request, token)
	}
	return request, nil
}

// body returns the body of a call and its type.
func (s *Source) body(c call) ([]byte, string, error) {
	q := c.request
	switch {
	case q.GraphQL != nil:
		variables := []byte("{}")
		if q.GraphQL.Variables != nil {
			variables = q.GraphQL.Variables.fill(nil, c.scope)
		}
		for _, name := range sortedKeys(c.extra) {
			v := quote(c.extra[name])
			if name == c.number {
				v = json.RawMessage(c.extra[name])
			}
			variables = add(variables, name, v)
		}
		out := append([]byte(`{"query":`), quote(q.GraphQL.Query)...)
		out = append(append(out, `,"variables":`...), variables...)
		return append(out, '}'), "application/json", nil
	case q.JSON != nil:
		return q.JSON.fill(nil, c.scope), "application/json", nil
	case c.data != nil && q.Encoding == "form":
		return []byte(formOf(c.data)), "application/x-www-form-urlencoded", nil
	case len(q.Form) > 0:
		form := url.Values{}
		for name, t := range q.Form {
			if v := t.fill(c.scope); v != "" {
				form.Set(name, v)
			}
		}
		return []byte(form.Encode()), "application/x-www-form-urlencoded", nil
	case c.data != nil:
		return c.data, "application/json", nil
	}
	return nil, "", nil
}

// target returns the address of a call.
func (s *Source) target(c call) (*url.URL, error) {
	if c.url != "" {
		return s.follow(s.base, c.url)
	}
	path, err := c.request.Path.fillPath(c.scope)
	if err != nil {
		return nil, err
	}
	var u *url.URL
	if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
		if u, err = url.Parse(path); err != nil {
			return nil, errors.New("the path is not an address")
		}
		if !c.open && (u.Scheme != s.base.Scheme || u.Host != s.base.Host) {
			return nil, errors.New("the path is of another host than base_url, where the credential must not go")
		}
	} else if u, err = url.Parse(strings.TrimRight(s.base.String(), "/") + path); err != nil {
		return nil, errors.New("the path is not one of an address")
	}
	query := u.Query()
	for name, t := range c.request.Query {
		if v := t.fill(c.scope); v != "" {
			query.Set(name, v)
		}
	}
	if c.request.GraphQL == nil {
		for name, v := range c.extra {
			query.Set(name, v)
		}
	}
	u.RawQuery = query.Encode()
	return u, nil
}

// follow resolves an address that the API gave. It must be of the same host: the
// credential goes nowhere else.
func (s *Source) follow(from *url.URL, to string) (*url.URL, error) {
	next, err := from.Parse(to)
	if err != nil {
		return nil, errors.New("the API sent an address that cannot be read")
	}
	if next.Scheme != from.Scheme || next.Host != from.Host {
		return nil, fmt.Errorf("the API sends to another host (%s://%s), where the credential must not go; set base_url to it if it is right", next.Scheme, next.Host)
	}
	return next, nil
}
