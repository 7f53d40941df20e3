package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockstep/locksteptest"
	core "lockstep/sandbox"
	"lockstep/source"
	"lockstep/source/github"
	"lockstep/source/rest"

	sandbox "lockstep/sandbox/github"
)

func TestACredentialIsNeeded(t *testing.T) {
	t.Parallel()
	if _, err := github.New(rest.Options{}); err == nil || !strings.Contains(err.Error(), "neither a token") {
		t.Errorf("got %v", err)
	}
	if _, err := github.New(rest.Options{Credential: map[string]string{"token": "ghp_1", "organization": "acme"}}); err != nil {
		t.Error(err)
	}
}

// app is a credential of the sandbox's App.
func (h hub) app(t testing.TB) map[string]string {
	t.Helper()
	key, err := h.NewAppKey()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"app_id": strconv.Itoa(sandbox.AppID), "installation_id": strconv.Itoa(sandbox.InstallationID), "private_key": key}
}

// all reads a collection and returns the ids.
func all(t testing.TB, s source.Source, collection string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for at := source.Cursor(nil); ; {
		page, err := s.Backfill(t.Context(), collection, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			found[r.ID] = true
		}
		if at = page.Next; at == nil {
			return found
		}
	}
}

// An App reads what its installation may see, with REST and GraphQL. Its tokens are
// fetched anew before they end, and when they are refused.
func TestAnAppsTokensAreRenewed(t *testing.T) {
	t.Parallel()
	// A token counts as ended a minute before its time.
	h := account(t, sandbox.Options{TokenLife: 61 * time.Second})
	s := h.with(t, h.app(t), nil, nil)
	if who, err := s.Check(t.Context()); err != nil || who != "acme" {
		t.Errorf("it is %q, %v", who, err)
	}
	for _, collection := range []string{"issue", "pull_request", "repository"} {
		if got, want := len(all(t, s, collection)), len(h.truth(t, collection)); got != want || got == 0 {
			t.Errorf("%s: %d of %d", collection, got, want)
		}
	}
	before := h.asked("access_tokens")[http.StatusCreated]
	h.ExpireTokens()
	if _, err := s.Backfill(t.Context(), "label", nil); err != nil {
		t.Error(err)
	}
	if after := h.asked("access_tokens")[http.StatusCreated]; after <= before {
		t.Errorf("%d tokens were fetched, then %d", before, after)
	}
	h.SetInstallation(sandbox.Suspended)
	if _, err := s.Backfill(t.Context(), "issue", nil); kindOf(err) != source.Unauthorized && kindOf(err) != source.Forbidden {
		t.Errorf("suspended: %v", err)
	}
	h.SetInstallation(sandbox.Removed)
	h.ExpireTokens()
	if _, err := s.Backfill(t.Context(), "issue", nil); kindOf(err) != source.Unauthorized {
		t.Errorf("removed: %v", err)
	}
}

func TestOneOrganizationsRepositories(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{Upheaval: 0.5})
	h.Core().Step(80) // some go to a person
	mine := 0
	for _, r := range h.objects(t, "repository") {
		if strings.HasPrefix(r["full_name"].(string), "acme/") {
			mine++
		}
	}
	everything := len(all(t, h.open(t), "repository"))
	s := h.with(t, map[string]string{"token": token, "organization": "acme"}, nil, nil)
	if got := len(all(t, s, "repository")); got != mine || got == everything {
		t.Errorf("%d of %d repositories of %d", got, mine, everything)
	}
}

func TestARevokedTokenComesBack(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{})
	s := h.open(t)
	h.RevokeToken(token)
	if _, err := s.Backfill(t.Context(), "issue", nil); kindOf(err) != source.Unauthorized || strings.Contains(err.Error(), token) {
		t.Errorf("revoked: %v", err)
	}
	h.AllowToken(token)
	if _, err := s.Backfill(t.Context(), "issue", nil); err != nil {
		t.Error(err)
	}
}

// some returns the full name and id of a repository, and the ids of a collection in it.
func (h hub) some(t testing.TB, collection string) (name, id string, ids []string) {
	t.Helper()
	for id, r := range h.objects(t, "repository") {
		ids = nil
		for one, o := range h.objects(t, collection) {
			if fmt.Sprint(o["repository_id"]) == id || fmt.Sprint(o["repositoryId"]) == id {
				ids = append(ids, one)
			}
		}
		if len(ids) >= 2 {
			return r["full_name"].(string), id, ids
		}
	}
	t.Fatalf("no repository has two of %s", collection)
	return "", "", nil
}

// A repository that is hidden is lost access: it and what is in it are not deleted, and
// are there again afterwards.
func TestAHiddenRepositoryIsNotDeleted(t *testing.T) {
	t.Parallel()
	for _, collection := range []string{"issue", "issue_comment", "pull_request", "review", "review_comment", "commit", "label", "milestone", "release"} {
		t.Run(collection, func(t *testing.T) {
			t.Parallel()
			h := account(t, sandbox.Options{History: 900, Repositories: 3})
			s := h.open(t)
			name, id, ids := h.some(t, collection)
			everything := all(t, s, collection)
			h.Hide(name)
			if _, err := s.Get(t.Context(), "repository", []string{id}); kindOf(err) != source.Forbidden {
				t.Errorf("the repository: %v", err)
			}
			if page, err := s.Get(t.Context(), collection, ids[:1]); kindOf(err) != source.Forbidden {
				t.Errorf("what is in it: %v %v", page.Records, err)
			}
			if page, err := h.open(t).Get(t.Context(), collection, ids[:1]); kindOf(err) != source.Forbidden {
				t.Errorf("what is in it, by a source that never saw it: %v %v", page.Records, err)
			}
			h.Show(name)
			if page, err := s.Get(t.Context(), collection, ids[:1]); err != nil || len(page.Records) != 1 || page.Records[0].Deleted {
				t.Errorf("afterwards: %v %v", page.Records, err)
			}
			if again := all(t, s, collection); len(again) != len(everything) {
				t.Errorf("%d, then %d", len(everything), len(again))
			}
		})
	}
}

// A repository that is hidden while its issues are listed ends the sweep.
func TestASweepDoesNotPassOverAHiddenRepository(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{})
	s := h.open(t)
	first, err := s.IDs(t.Context(), "issue", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range h.objects(t, "repository") {
		h.Hide(r["full_name"].(string))
	}
	for at := first.Next; err == nil; {
		var next source.Page
		if next, err = s.IDs(t.Context(), "issue", at); err != nil {
			break
		}
		if at = next.Next; at == nil {
			t.Fatal("the sweep came to its end without the repositories")
		}
	}
	if kindOf(err) != source.Forbidden {
		t.Errorf("the sweep gave %v", err)
	}
}

// GitHub refuses in many ways, some with status 200.
func TestRefusals(t *testing.T) {
	t.Parallel()
	reset := time.Now().Add(10 * time.Minute)
	in10m := strconv.FormatInt(reset.Unix(), 10)
	for name, c := range map[string]struct {
		status  int
		header  map[string]string
		body    string
		kind    source.Kind
		atLeast time.Duration
		bucket  string
	}{
		"primary limit":       {403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in10m}, `{"message":"API rate limit exceeded"}`, source.RateLimited, 9 * time.Minute, "core"},
		"secondary limit":     {403, nil, `{"message":"You have exceeded a secondary rate limit. Please wait"}`, source.RateLimited, time.Minute, "secondary"},
		"told to wait":        {403, map[string]string{"Retry-After": "17"}, `{"message":"slow"}`, source.RateLimited, 17 * time.Second, "secondary"},
		"GraphQL's limit":     {200, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in10m}, `{"errors":[{"type":"RATE_LIMITED"}]}`, source.RateLimited, 9 * time.Minute, "graphql"},
		"half of a query":     {200, nil, `{"data":{"repository":null},"errors":[{"message":"Something went wrong"}]}`, source.Retry, 0, ""},
		"a missing scope":     {403, nil, `{"message":"Resource not accessible by personal access token"}`, source.Forbidden, 0, ""},
		"a token of nobody's": {401, nil, `{"message":"Bad credentials"}`, source.Unauthorized, 0, ""},
		"legal reasons":       {451, nil, `{"message":"Repository access blocked"}`, source.Forbidden, 0, ""},
	} {
		h := account(t, sandbox.Options{})
		// The first request lists the repositories.
		s := h.with(t, map[string]string{"token": token}, &locksteptest.Canned{Status: c.status, Header: c.header, Body: c.body, Base: http.DefaultTransport, After: 1}, nil)
		_, err := s.Backfill(t.Context(), "pull_request", nil)
		var e *source.Error
		if !errors.As(err, &e) || e.Kind != c.kind || e.After < c.atLeast || e.Bucket != c.bucket {
			t.Errorf("%s: got %+v", name, err)
		}
	}
}

// The sandbox's own limits, as GitHub words them, are told apart.
func TestLimitsAsGitHubWordsThem(t *testing.T) {
	t.Parallel()
	for bucket, limit := range map[string]core.Limit{
		"core":      {Name: "core", Rate: 3, Per: core.Duration(time.Hour), Window: core.Fixed},
		"graphql":   {Name: "graphql", Rate: 3, Per: core.Duration(time.Hour), Window: core.Fixed},
		"secondary": {Name: "secondary:points", Rate: 3, Per: core.Duration(time.Hour), Window: core.Sliding},
	} {
		h := account(t, sandbox.Options{})
		h.Core().Limits().On()
		h.Core().Limits().Set(limit)
		s := h.open(t)
		collection := "issue"
		if bucket == "graphql" {
			collection = "pull_request"
		}
		var err error
		for at := source.Cursor(nil); err == nil; {
			var page source.Page
			if page, err = s.Backfill(t.Context(), collection, at); err == nil && page.Next == nil {
				t.Fatalf("%s: nothing was refused", bucket)
			}
			at = page.Next
		}
		var e *source.Error
		if !errors.As(err, &e) || e.Kind != source.RateLimited || e.Bucket != bucket || e.After < 50*time.Minute {
			t.Errorf("%s: %+v", bucket, err)
		}
	}
}
