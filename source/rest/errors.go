package rest

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lockstep/source"
)

// Rule says what an answer means. The first rule that matches counts: those of the
// request come first, then those of the spec, then what the status alone means.
type Rule struct {
	At      place
	Status  Words      `y:"status"` // 404, 5*
	Body    Match      `y:"body"`
	Header  HeaderRule `y:"header"`
	Then    string     `y:"then,required" oneof:"retry limited refresh restart split skip empty gone forbidden unauthorized invalid fail"`
	Bucket  string     `y:"bucket"` // limited: the one to pause
	Wait    *Wait      `y:"wait"`
	Message string     `y:"message"` // what to do, for people
}

// HeaderRule is what headers must be, as [Match] says for bodies.
type HeaderRule map[string]Words

// Wait says how long a refusal lasts. Retry-After is always looked at as well.
type Wait struct {
	Header string        `y:"header"`
	Format string        `y:"format" oneof:"seconds epoch"`
	AtMost time.Duration `y:"at_most"`
	Least  time.Duration `y:"least"`
}

func (rule Rule) matches(a *answer) bool {
	if len(rule.Status) > 0 && !rule.Status.match(strconv.Itoa(a.status)) {
		return false
	}
	for name, words := range rule.Header {
		if !words.match(a.header.Get(name)) {
			return false
		}
	}
	return len(rule.Body) == 0 || a.valid && rule.Body.of(a.body)
}

// verdict is what an answer means.
type verdict struct {
	then   string
	after  time.Duration
	bucket string
	remedy string
}

// judge returns what to do about an answer; then is empty when it is a success.
func (s *Source) judge(q *Request, a *answer, now time.Time) verdict {
	for _, rules := range [][]Rule{q.Errors, s.spec.Errors} {
		for _, rule := range rules {
			if rule.matches(a) {
				return verdict{then: rule.Then, after: rule.pause(a, now), bucket: rule.Bucket, remedy: rule.Message}
			}
		}
	}
	v := verdict{after: Rule{}.pause(a, now)}
	switch {
	case a.status < 300 && q.GraphQL != nil && a.valid && len(Path{"errors", "0"}.in(a.body)) > 0:
		// Parts of the data may be there: taking them would be taking half a page.
		v.then = graphqlError(Path{"errors", "0", "type"}.text(a.body))
	case a.status < 300 || a.status == http.StatusNotModified:
	case a.status == http.StatusUnauthorized:
		v.then, v.remedy = "refresh", "check the credential"
	case a.status == http.StatusForbidden:
		v.then, v.remedy = "forbidden", "give the credential access, or leave the collection out"
	case a.status == http.StatusNotFound, a.status == http.StatusGone:
		v.then = "gone"
	case a.status == http.StatusTooManyRequests:
		v.then = "limited"
	case a.status == http.StatusRequestTimeout, a.status == http.StatusConflict, a.status == http.StatusTooEarly, a.status >= 500:
		v.then = "retry"
	case a.status >= 300 && a.status < 400:
		v.then, v.remedy = "fail", "check base_url"
	default:
		v.then, v.remedy = "invalid", "check the spec against the API's documentation"
	}
	return v
}

func graphqlError(kind string) string {
	switch kind {
	case "RATE_LIMITED":
		return "limited"
	case "NOT_FOUND":
		return "gone"
	case "FORBIDDEN", "INSUFFICIENT_SCOPES":
		return "forbidden"
	}
	return "retry"
}

// pause is how long the answer asks to wait.
func (rule Rule) pause(a *answer, now time.Time) time.Duration {
	after := retryAfter(a.header.Get("Retry-After"), now)
	w := rule.Wait
	if w == nil {
		return after
	}
	if n, err := strconv.ParseInt(a.header.Get(w.Header), 10, 64); err == nil && n >= 0 && n < 1<<40 {
		given := time.Duration(min(n, 1<<30)) * time.Second
		if w.Format == "epoch" {
			given = time.Unix(n, 0).Sub(now) + time.Second // the API's second is not over yet
		}
		after = max(after, given)
	}
	after = max(after, w.Least)
	if w.AtMost > 0 {
		after = min(after, w.AtMost)
	}
	return after
}

// retryAfter reads the header: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		if !(n > 0) || n > 1e6 {
			return 0
		}
		return time.Duration(n * float64(time.Second))
	}
	t, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(0, t.Sub(now))
}

// kindOf translates a rule's word. Skip is handled where it is allowed.
func kindOf(then string) source.Kind {
	switch then {
	case "retry":
		return source.Retry
	case "limited":
		return source.RateLimited
	case "restart":
		return source.Restart
	case "gone":
		return source.Gone
	case "forbidden":
		return source.Forbidden
	case "refresh", "unauthorized":
		return source.Unauthorized
	case "invalid", "split":
		return source.Invalid
	}
	return source.Failed
}

// refusal makes the error of an answer.
func (s *Source) refusal(asked string, a *answer, v verdict) *source.Error {
	message := fmt.Sprintf("%s: %s answered %d", asked, s.name(), a.status)
	if said := s.said(a); said != "" {
		message += ": " + said
	}
	if v.remedy != "" {
		message += "; " + v.remedy
	}
	return &source.Error{Kind: kindOf(v.then), Status: a.status, After: v.after, Bucket: v.bucket, Message: s.redact(message)}
}

// said returns the API's own words, cut short.
func (s *Source) said(a *answer) string {
	if !a.valid {
		if looksLikeHTML(a.body) {
			return "an HTML page instead of JSON"
		}
		return ""
	}
	path := s.spec.Message
	if path == nil {
		path = Path{"message"}
	}
	text := path.text(a.body)
	if text == "" {
		text = Path{"errors", "0", "message"}.text(a.body)
	}
	if !utf8.ValidString(text) || len(text) > 500 {
		text = strings.ToValidUTF8(text[:min(len(text), 500)], "") + "…"
	}
	return strings.TrimSpace(text)
}

// redact takes out what the credential holds, wherever it came from.
func (s *Source) redact(text string) string {
	for _, secret := range s.secrets() {
		if len(secret) >= 6 {
			text = strings.ReplaceAll(text, secret, "[hidden]")
		}
	}
	return text
}

func looksLikeHTML(body []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) }

// read implements reads, so that headers are written like a match.
func (h *HeaderRule) read(r *reader, v value) {
	m := map[string]Words{}
	r.into(v, reflect.ValueOf(&m).Elem(), "")
	*h = m
}
