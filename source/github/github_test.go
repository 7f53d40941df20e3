package github_test

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockstep/locksteptest"
	"lockstep/source"
	"lockstep/source/github"
	"lockstep/source/rest"
)

func open(t testing.TB, base string, transport http.RoundTripper, limiter source.Limiter) *rest.Source {
	t.Helper()
	s, err := github.New(rest.Options{BaseURL: base, Credential: map[string]string{"token": "ghp_secret1"}, Transport: transport, Limiter: limiter})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGitHubKeepsTheContract(t *testing.T) {
	t.Parallel()
	h, base := newHub(t)
	locksteptest.TestSource(t, locksteptest.Subject{
		New: func(t testing.TB, transport http.RoundTripper, limiter source.Limiter) source.Source {
			return open(t, base, transport, limiter)
		},
		Truth:       h.truth,
		Change:      h.change,
		Collections: []string{"issue", "pull_request"},
		Secrets:     []string{"ghp_secret1"},
	})
}

func TestACredentialIsNeeded(t *testing.T) {
	t.Parallel()
	if _, err := github.New(rest.Options{}); err == nil || !strings.Contains(err.Error(), "neither a token") {
		t.Errorf("got %v", err)
	}
	if _, err := github.New(rest.Options{Credential: map[string]string{"token": "ghp_1", "organization": "acme"}}); err != nil {
		t.Error(err)
	}
}

// kindOf returns the kind of a source's error.
func kindOf(err error) source.Kind {
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e.Kind
	}
	return ""
}

// A repository that is hidden is lost access: it and what is in it are not deleted.
func TestAHiddenRepositoryIsNotDeleted(t *testing.T) {
	t.Parallel()
	h, base := newHub(t)
	s := open(t, base, nil, nil)
	page, err := s.Get(t.Context(), "repository", []string{"1001"})
	if err != nil || len(page.Records) != 1 || page.Records[0].Deleted {
		t.Fatal(page.Records, err)
	}
	first, err := s.IDs(t.Context(), "issue", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.hidden["acme/repo1"] = true
	h.mu.Unlock()
	if _, err = s.Get(t.Context(), "repository", []string{"1001"}); kindOf(err) != source.Forbidden {
		t.Errorf("fetching it gave %v", err)
	}
	for at := first.Next; err == nil || kindOf(err) == source.Forbidden; {
		var next source.Page
		if next, err = s.IDs(t.Context(), "issue", at); err != nil {
			break
		}
		if at = next.Next; at == nil {
			t.Fatal("the sweep came to its end without the repository")
		}
	}
	if kindOf(err) != source.Forbidden {
		t.Errorf("the sweep gave %v", err)
	}
}

// Polling what did not change costs nothing of GitHub's limit.
func TestPollingIssuesThatDidNotChangeIsConditional(t *testing.T) {
	t.Parallel()
	h, base := newHub(t)
	s := open(t, base, nil, nil)
	at, err := s.Start(t.Context(), "issue")
	if err != nil {
		t.Fatal(err)
	}
	poll := func() (n int) {
		for {
			page, err := s.Changes(t.Context(), "issue", at, 0)
			if err != nil {
				t.Fatal(err)
			}
			n += len(page.Records)
			if at = page.Next; !page.More {
				return n
			}
		}
	}
	poll()
	poll()
	h.mu.Lock()
	clear(h.answers)
	h.mu.Unlock()
	if n := poll(); n != 0 {
		t.Errorf("%d issues changed", n)
	}
	// The repositories themselves are listed; the three lists of issues are as they were.
	h.mu.Lock()
	if h.answers[304] != 3 || h.answers[200] != 1 {
		t.Errorf("answers: %v", h.answers)
	}
	h.mu.Unlock()
	h.change(t)
	if n := poll(); n < 3 {
		t.Errorf("%d of at least 3 changes were seen", n)
	}
}

// GitHub refuses in many ways, some with status 200.
func TestRefusals(t *testing.T) {
	t.Parallel()
	reset := time.Now().Add(10 * time.Minute)
	for name, c := range map[string]struct {
		status  int
		header  map[string]string
		body    string
		kind    source.Kind
		atLeast time.Duration
		bucket  string
	}{
		"primary limit":       {403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmtUnix(reset)}, `{"message":"API rate limit exceeded"}`, source.RateLimited, 9 * time.Minute, "core"},
		"secondary limit":     {403, nil, `{"message":"You have exceeded a secondary rate limit. Please wait"}`, source.RateLimited, time.Minute, "secondary"},
		"told to wait":        {403, map[string]string{"Retry-After": "17"}, `{"message":"slow"}`, source.RateLimited, 17 * time.Second, "secondary"},
		"GraphQL's limit":     {200, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmtUnix(reset)}, `{"errors":[{"type":"RATE_LIMITED"}]}`, source.RateLimited, 9 * time.Minute, "graphql"},
		"half of a query":     {200, nil, `{"data":{"repository":null},"errors":[{"message":"Something went wrong"}]}`, source.Retry, 0, ""},
		"a missing scope":     {403, nil, `{"message":"Resource not accessible by personal access token"}`, source.Forbidden, 0, ""},
		"a token of nobody's": {401, nil, `{"message":"Bad credentials"}`, source.Unauthorized, 0, ""},
		"legal reasons":       {451, nil, `{"message":"Repository access blocked"}`, source.Forbidden, 0, ""},
	} {
		_, base := newHub(t)
		// The first request lists the repositories.
		s := open(t, base, &locksteptest.Canned{Status: c.status, Header: c.header, Body: c.body, Base: http.DefaultTransport, After: 1}, nil)
		_, err := s.Backfill(t.Context(), "pull_request", nil)
		var e *source.Error
		if !errors.As(err, &e) || e.Kind != c.kind || e.After < c.atLeast || e.Bucket != c.bucket {
			t.Errorf("%s: got %+v", name, err)
		}
	}
}

func fmtUnix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
