package github

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"lockstep/sandbox"
)

// The names of the limits. A primary one is what X-RateLimit-Resource says.
const (
	limitCore       = "core"
	limitGraphQL    = "graphql"
	limitAnonymous  = "core:anonymous"
	limitPoints     = "secondary:points"  // REST: 1 for a read, 5 for a write
	limitQueries    = "secondary:graphql" // GraphQL: 1 for a query, 5 for a mutation
	limitConcurrent = "secondary:concurrent"
	limitContent    = "secondary:content" // what makes issues, comments and the like
	limitContentH   = "secondary:content-hour"
)

// Limits are GitHub's documented limits: per hour for each account, which headers tell
// of, and the secondary ones, which they do not.
func Limits() []sandbox.Limit {
	hour, minute := sandbox.Duration(time.Hour), sandbox.Duration(time.Minute)
	return []sandbox.Limit{
		{Name: limitCore, Rate: 5000, Per: hour, Window: sandbox.Fixed},
		{Name: limitGraphQL, Rate: 5000, Per: hour, Window: sandbox.Fixed},
		{Name: limitAnonymous, Rate: 60, Per: hour, Window: sandbox.Fixed},
		{Name: limitPoints, Rate: 900, Per: minute, Window: sandbox.Sliding},
		{Name: limitQueries, Rate: 2000, Per: minute, Window: sandbox.Sliding},
		{Name: limitConcurrent, Concurrent: 100},
		{Name: limitContent, Rate: 80, Per: minute, Window: sandbox.Sliding},
		{Name: limitContentH, Rate: 500, Per: hour, Window: sandbox.Sliding},
	}
}

// primary is the limit per hour that a request counts to.
func (q *request) primary() string {
	switch {
	case q.who.anonymous:
		return limitAnonymous
	case q.path == graphqlPath:
		return limitGraphQL
	}
	return limitCore
}

func (q *request) secondary() []sandbox.Charge {
	points, cost := limitPoints, 1.0
	if q.path == graphqlPath {
		points = limitQueries
	}
	if q.method != http.MethodGet && q.path != graphqlPath || q.mutates {
		cost = 5
	}
	charges := []sandbox.Charge{{Limit: points, Key: q.who.name, Cost: cost}, {Limit: limitConcurrent, Key: q.who.name}}
	if q.route != nil && q.route.content {
		charges = append(charges, sandbox.Charge{Limit: limitContent, Key: q.who.name}, sandbox.Charge{Limit: limitContentH, Key: q.who.name})
	}
	return charges
}

// admit asks the limiter. The primary limit is only looked at when free is said, as for
// what a conditional request that is answered 304 costs. Real time counts, not the
// world's: it is the client that is being paced.
func (q *request) admit(cost float64) (leave func(), err *Error) {
	now := time.Now()
	charges := q.secondary()
	if cost > 0 {
		charges = append([]sandbox.Charge{{Limit: q.primary(), Key: q.who.name, Cost: cost}}, charges...)
	}
	leave, refused := q.s.core.Limits().Enter(now, charges...)
	if refused == nil {
		return leave, nil
	}
	q.call.Limited = refused.Limit.Name
	if refused.Limit.Name == q.primary() {
		return leave, q.exhausted()
	}
	e := &Error{Status: http.StatusForbidden, Message: secondaryMessage, URL: "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}
	if refused.After > 0 {
		q.header.Set("Retry-After", strconv.Itoa(int(math.Ceil(refused.After.Seconds()))))
	}
	return leave, e
}

const secondaryMessage = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. If you reach out to GitHub Support for help, please include the request ID."

func (q *request) exhausted() *Error {
	whom := "user ID " + strconv.FormatInt(q.who.id, 10)
	switch {
	case q.who.anonymous:
		return &Error{Status: http.StatusForbidden, Message: "API rate limit exceeded for 127.0.0.1. (But here's the good news: Authenticated requests get a higher rate limit. Check out the documentation for more details.)",
			URL: "https://docs.github.com/rest/overview/resources-in-the-rest-api#rate-limiting"}
	case q.who.installation:
		whom = "installation ID " + strconv.FormatInt(q.who.id, 10)
	}
	if q.path == graphqlPath {
		return &Error{Status: http.StatusOK, Kind: "RATE_LIMITED", Message: "API rate limit already exceeded for " + whom + "."}
	}
	return &Error{Status: http.StatusForbidden, Message: "API rate limit exceeded for " + whom + ".", URL: "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"}
}

// standing is where an account is with a limit, its reset by the world's clock.
func (q *request) standing(limit string) sandbox.Standing {
	real := time.Now()
	n := q.s.core.Limits().Standing(real, sandbox.Charge{Limit: limit, Key: q.who.name})
	n.Reset = q.now.Add(n.Reset.Sub(real))
	return n
}

// tell puts into the headers what is left.
func (q *request) tell() {
	limit := q.primary()
	n := q.standing(limit)
	for name, v := range map[string]int64{"X-RateLimit-Limit": int64(n.Limit), "X-RateLimit-Remaining": int64(n.Remaining), "X-RateLimit-Used": int64(n.Used), "X-RateLimit-Reset": n.Reset.Unix()} {
		q.header.Set(name, strconv.FormatInt(v, 10))
	}
	if limit == limitAnonymous {
		limit = limitCore
	}
	q.header.Set("X-RateLimit-Resource", limit)
}

// rateLimit is GET /rate_limit, which costs nothing.
func (q *request) rateLimit() (any, *Error) {
	one := func(name string) doc {
		n := q.standing(name)
		return doc{"limit": int64(n.Limit), "used": int64(n.Used), "remaining": int64(n.Remaining), "reset": n.Reset.Unix()}
	}
	core := one(limitCore)
	if q.who.anonymous {
		core = one(limitAnonymous)
	}
	search := doc{"limit": int64(30), "used": int64(0), "remaining": int64(30), "reset": q.now.Add(time.Minute).Unix()}
	return doc{"rate": core, "resources": doc{limitCore: core, limitGraphQL: one(limitGraphQL), "search": search}}, nil
}
