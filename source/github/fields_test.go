package github_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"lockstep/source"
	"lockstep/source/github"

	sandbox "lockstep/sandbox/github"
)

// signed are the headers of a webhook.
func signed(event, body string) http.Header {
	mac := hmac.New(sha256.New, []byte("whsec"))
	mac.Write([]byte(body))
	h := http.Header{}
	h.Set("X-GitHub-Event", event)
	h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	return h
}

func TestForgedWebhooksAreRefused(t *testing.T) {
	t.Parallel()
	s := account(t, sandbox.Options{Repositories: -1}).open(t)
	_, err := s.Receive(t.Context(), signed("issues", "{}"), []byte("{ }"))
	if kindOf(err) != source.Unauthorized {
		t.Errorf("got %v", err)
	}
}

// Pull requests have the names of the older contract, which are GraphQL's, and the id of
// the record is the pull request's number in GitHub's database, as text.
func TestPullRequestsHaveTheNamesOfTheOlderContract(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{})
	page, err := h.open(t).Backfill(t.Context(), "pull_request", nil)
	if err != nil {
		t.Fatal(err)
	}
	var pull object
	if err := json.Unmarshal(page.Records[0].Data, &pull); err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq("activeLockReason additions author authorAssociation baseRefName body changedFiles closed closedAt createdAt deletions headRefName " +
		"id isDraft labels locked mergeable merged mergedAt number permalink reviewDecision state title updatedAt url repositoryId fullDatabaseId") {
		if _, ok := pull[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if page.Records[0].ID != pull["fullDatabaseId"] || page.Records[0].Version.IsZero() || page.Records[0].Created.IsZero() {
		t.Errorf("%s of %s, %s", page.Records[0].ID, page.Records[0].Created, page.Records[0].Version)
	}
}

// One record is asked for with the fields that the list has.
func TestListsAndSingleRecordsHaveTheSameFields(t *testing.T) {
	t.Parallel()
	spec, err := github.Spec()
	if err != nil {
		t.Fatal(err)
	}
	for collection, bounds := range map[string][2]string{"pull_request": {"activeLockReason", "totalCommentsCount updatedAt url"}, "review": {"author { login } authorAssociation", "submittedAt updatedAt url"}} {
		cut := func(query string) []string {
			from, to := strings.Index(query, bounds[0]), strings.LastIndex(query, bounds[1])
			if from < 0 || to < 0 {
				t.Fatalf("%s: the query has no %v", collection, bounds)
			}
			return strings.Fields(query[from : to+len(bounds[1])])
		}
		c := spec.Collections[collection]
		if one, list := cut(c.Get.GraphQL.Query), cut(c.List.GraphQL.Query); !slices.Equal(one, list) {
			t.Errorf("%s: one has %v, the list %v", collection, one, list)
		}
	}
}

// recorder keeps the GraphQL queries that pass.
type recorder struct {
	mu      sync.Mutex
	queries map[string]bool
}

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	if strings.HasSuffix(q.URL.Path, "/graphql") {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return nil, err
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
		var asked struct{ Query string }
		if err := json.Unmarshal(body, &asked); err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.queries[asked.Query] = true
		r.mu.Unlock()
	}
	return http.DefaultTransport.RoundTrip(q)
}

// TestGitHubsSchemaTakesEveryQuery validates what the connector sends against GitHub's
// whole schema. GITHUB_SDK names a folder in which `npm install
// @octokit/graphql-schema@15.26.1` was run.
func TestGitHubsSchemaTakesEveryQuery(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node: the schema's own validator needs it")
	}
	sdk := os.Getenv("GITHUB_SDK")
	if _, err := os.Stat(filepath.Join(sdk, "node_modules", "@octokit", "graphql-schema")); sdk == "" || err != nil {
		t.Skip("there is no schema: npm install @octokit/graphql-schema@15.26.1 somewhere, and set GITHUB_SDK to that folder")
	}
	h := account(t, sandbox.Options{History: 600})
	r := &recorder{queries: map[string]bool{}}
	s := h.with(t, map[string]string{"token": token}, r, nil)
	for _, collection := range []string{"pull_request", "review"} {
		_, _, ids := h.some(t, collection)
		all(t, s, collection)
		if _, err := s.Get(t.Context(), collection, ids[:1]); err != nil {
			t.Fatal(err)
		}
		at, err := s.Start(t.Context(), collection)
		if err != nil {
			t.Fatal(err)
		}
		poll(t, s, collection, at)
	}
	if len(r.queries) != 4 {
		t.Errorf("%d queries", len(r.queries))
	}
	for query := range r.queries {
		command := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "validate.mjs"), sdk)
		command.Stdin = strings.NewReader(query)
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s\n%s", regexp.MustCompile(`\s+`).ReplaceAllString(query, " "), out)
		}
	}
}
