package stripe

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"lockstep/sandbox"
)

// request is one call of the API, typed.
type request struct {
	s       *Sandbox
	method  string
	path    string
	vars    map[string]string // of the path
	params  doc
	expand  []string
	version string
	id      string // req_…
	key     string // Idempotency-Key
	now     time.Time
	fault   *sandbox.Fault
}

// handler answers one route. Those of writes run alone, those of reads do not change
// anything. What they return is a doc or rendered JSON.
type handler func(*request) (any, *Error)

// route is one operation of the specification with what answers it.
type route struct {
	method, pattern string
	operation       operation
	handle          handler
}

// router finds routes by the parts of a path.
type router struct {
	next map[string]*router
	any  *router // any part: a variable
	ends map[string]*route
}

// newRouter takes the handlers by "GET /v1/…", patterns as in the specification.
func newRouter(s *spec, handlers map[string]handler) (*router, error) {
	root := &router{next: map[string]*router{}, ends: map[string]*route{}}
	for name, handle := range handlers {
		method, pattern, _ := strings.Cut(name, " ")
		described := pattern
		if alias := unlisted()[pattern]; alias != "" {
			described = alias
		}
		o, ok := s.Paths[described][strings.ToLower(method)]
		if !ok {
			return nil, fmt.Errorf("stripe sandbox: %s is not in Stripe's description", name)
		}
		at := root
		for part := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
			at = at.step(part)
		}
		at.ends[method] = &route{method: method, pattern: pattern, operation: o, handle: handle}
	}
	return root, nil
}

// unlisted are routes that Stripe answers but does not describe any more, with those
// that take the same parameters.
func unlisted() map[string]string {
	return map[string]string{
		"/v1/customers/{customer}/subscriptions": "/v1/subscriptions",
		"/v1/customers/{customer}/sources":       "/v1/customers/{customer}/payment_methods",
		"/v1/customers/{customer}/tax_ids":       "/v1/customers/{customer}/payment_methods",
	}
}

// vacant are lists of things that no account of the sandbox has.
func vacant() []string {
	return []string{
		"/v1/application_fees", "/v1/billing_portal/configurations", "/v1/entitlements/features", "/v1/file_links", "/v1/files", "/v1/payment_links",
		"/v1/quotes", "/v1/radar/early_fraud_warnings", "/v1/reviews", "/v1/shipping_rates", "/v1/subscription_schedules", "/v1/tax/registrations",
		"/v1/tax_codes", "/v1/topups", "/v1/transfers", "/v1/webhook_endpoints",
	}
}

func (r *router) step(part string) *router {
	fresh := &router{next: map[string]*router{}, ends: map[string]*route{}}
	if strings.HasPrefix(part, "{") {
		if r.any == nil {
			r.any = fresh
		}
		return r.any
	}
	if r.next[part] == nil {
		r.next[part] = fresh
	}
	return r.next[part]
}

func (r *router) find(method, path string) (*route, map[string]string) {
	var values []string
	at := r
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if to := at.next[part]; to != nil {
			at = to
			continue
		}
		if at = at.any; at == nil {
			return nil, nil
		}
		value, err := url.PathUnescape(part)
		if err != nil {
			return nil, nil
		}
		values = append(values, value)
	}
	found := at.ends[method]
	if found == nil {
		return nil, nil
	}
	vars := map[string]string{}
	for part := range strings.SplitSeq(found.pattern, "/") {
		if strings.HasPrefix(part, "{") {
			vars[strings.Trim(part, "{}")], values = values[0], values[1:]
			if len(vars) == 1 {
				vars["id"] = vars[strings.Trim(part, "{}")]
			}
		}
	}
	return found, vars
}

// serve answers a request of the vendor's routes.
func (s *Sandbox) serve(w http.ResponseWriter, r *http.Request) {
	call := sandbox.CallOf(r.Context())
	q := &request{s: s, method: r.Method, path: r.URL.Path, now: s.core.Clock().Now(), key: r.Header.Get("Idempotency-Key"), fault: call.Spoiled()}
	q.id = s.requestID()
	call.RequestID, call.IdempotencyKey = q.id, q.key
	w.Header().Set("Request-Id", q.id)
	found, vars := s.router.find(r.Method, r.URL.EscapedPath())
	if found != nil {
		call.Endpoint = found.method + " " + found.pattern
	}
	q.vars = vars
	status, body, err := s.answer(w, r, q, found, call)
	call.Version = q.version
	if err != nil {
		if err.retry != "" {
			w.Header().Set("Stripe-Should-Retry", err.retry)
		}
		status, body = err.Status, err.body(q.id)
	}
	sandbox.WriteBody(w, status, "application/json", body)
}

func (s *Sandbox) answer(w http.ResponseWriter, r *http.Request, q *request, found *route, call *sandbox.Call) (int, []byte, *Error) {
	credential, err := s.signIn(r)
	if err != nil {
		return 0, nil, err
	}
	call.Account = s.accountID()
	leave, err := s.admit(w, call, credential)
	defer leave()
	if err != nil {
		return 0, nil, err
	}
	if err := q.setVersion(r, s); err != nil {
		return 0, nil, err
	}
	w.Header().Set("Stripe-Version", q.version)
	if found == nil && r.Method == http.MethodGet && slices.Contains(vacant(), r.URL.Path) {
		return http.StatusOK, sandbox.Encode(doc{"object": "list", "url": r.URL.Path, "has_more": false, "data": []any{}}), nil
	}
	if found == nil {
		return 0, nil, &Error{Status: http.StatusNotFound, Type: "invalid_request_error", Message: fmt.Sprintf(
			"Unrecognized request URL (%s: %s). Please see https://stripe.com/docs or we can help at https://support.stripe.com/.", r.Method, r.URL.Path)}
	}
	if err := credential.allows(found); err != nil {
		return 0, nil, err
	}
	given, raw, err := form(r)
	if err != nil {
		return 0, nil, err
	}
	if q.params, err = s.spec.check(found.operation, r.Method, given); err != nil {
		return 0, nil, err
	}
	q.takeExpand()
	if q.fault != nil && q.fault.Kind == faultStep {
		s.core.Step(max(q.fault.N, 1))
	}
	if r.Method == http.MethodGet {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return q.run(found)
	}
	return s.write(w, q, found, raw)
}

// run calls a route's handler and renders what it returns.
func (q *request) run(found *route) (int, []byte, *Error) {
	v, err := found.handle(q)
	if err != nil {
		return 0, nil, err
	}
	if d, ok := v.(doc); ok {
		if v, err = q.show(d, found.operation.Answer); err != nil {
			return 0, nil, err
		}
	}
	if body, ok := v.([]byte); ok {
		return http.StatusOK, body, nil
	}
	return http.StatusOK, sandbox.Encode(v), nil
}

// form reads the parameters of a request.
func form(r *http.Request) (doc, string, *Error) {
	if r.Method == http.MethodGet {
		d, err := decodeForm(r.URL.RawQuery)
		return d, "", err
	}
	body, failed := io.ReadAll(io.LimitReader(r.Body, 10<<20))
	if failed != nil {
		return nil, "", invalid("", "", "The request body could not be read.")
	}
	kind := r.Header.Get("Content-Type")
	if len(body) > 0 && !strings.HasPrefix(kind, "application/x-www-form-urlencoded") {
		return nil, "", invalid("", "", "Invalid request: Content-Type "+kind+" is not supported; send application/x-www-form-urlencoded.")
	}
	text := string(body)
	if r.URL.RawQuery != "" {
		text = strings.Trim(r.URL.RawQuery+"&"+text, "&")
	}
	d, err := decodeForm(text)
	return d, text, err
}

func (q *request) takeExpand() {
	list, _ := q.params["expand"].([]any)
	for _, path := range list {
		q.expand = append(q.expand, text(path))
	}
	delete(q.params, "expand")
}

var versionForm = regexp.MustCompile(`^\d{4}-\d\d-\d\d(\.[a-z]+)?$`)

func validVersion(v string) bool { return versionForm.MatchString(v) }

func (q *request) setVersion(r *http.Request, s *Sandbox) *Error {
	s.mu.RLock()
	q.version = s.version
	s.mu.RUnlock()
	asked := r.Header.Get("Stripe-Version")
	if asked == "" {
		return nil
	}
	// The SDKs append betas: 2026-10-28.endive; feature_beta=v1.
	asked, _, _ = strings.Cut(asked, ";")
	if !validVersion(asked) {
		return invalid("", "", "Invalid Stripe API version: "+asked)
	}
	q.version = asked
	return nil
}

// admit asks the limiter.
func (s *Sandbox) admit(w http.ResponseWriter, call *sandbox.Call, a *access) (leave func(), err *Error) {
	// Real time, not the world's: it is the client that is being paced.
	leave, refused := s.core.Limits().Enter(time.Now(),
		sandbox.Charge{Limit: a.limit(), Key: call.Account},
		sandbox.Charge{Limit: limitEndpoint, Key: call.Account + " " + call.Endpoint},
		sandbox.Charge{Limit: limitConcurrency, Key: call.Account})
	if refused == nil {
		return leave, nil
	}
	call.Limited = refused.Limit.Name
	reason, _, _ := strings.Cut(refused.Limit.Name, ":")
	w.Header().Set("Stripe-Rate-Limited-Reason", reason)
	return leave, &Error{Status: http.StatusTooManyRequests, Type: "invalid_request_error", Code: "rate_limit", Message: tooMany, retry: "true"}
}

func (s *Sandbox) requestID() string {
	return "req_" + s.options.Seed.Code("request", s.requests.Add(1), 14)
}

// faultKinds are what this API does wrong on demand, besides what any can.
func faultKinds() map[string]string {
	return map[string]string{
		faultStuck:     "a list that says has_more and begins anew: its cursor never moves",
		faultEmpty:     "an empty page that says has_more",
		faultShort:     "a page with n objects less (default half) that says has_more, and goes on behind them",
		faultDuplicate: "a page whose last object comes twice, the second time as it was before",
		faultAgedOut:   "the error for an event that is too old to be a cursor",
		faultStep:      "n things (default 1) happen before the answer, between two pages for example",
	}
}

const (
	faultStuck     = "list_stuck"
	faultEmpty     = "list_empty"
	faultShort     = "list_short"
	faultDuplicate = "list_duplicate"
	faultAgedOut   = "events_aged_out"
	faultStep      = "step"
)
