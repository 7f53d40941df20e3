package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sandbox"
	"lockstep/sandbox/github"
)

// stage is the program of this folder with all that it needs: a GitHub, a node that
// mirrors it, and a database that has the mirror and the program's table.
type stage struct {
	t        *testing.T
	github   *github.Sandbox
	api      string // GitHub's address
	server   string // the node's
	database string
	binary   string

	program *exec.Cmd
	said    bytes.Buffer
}

func newStage(t *testing.T) *stage {
	t.Helper()
	world, err := github.New(github.Options{Repositories: 3, History: 300, Deletions: -1, Unlimited: true})
	if err != nil {
		t.Fatal(err)
	}
	served := httptest.NewServer(sandbox.Mount(world))
	t.Cleanup(served.Close)
	s := &stage{t: t, github: world, api: served.URL, database: pgtest.Database(t), binary: filepath.Join(t.TempDir(), "postgres-upsert")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", s.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	s.startNode()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the program said:\n%s", s.said.String())
		}
	})
	return s
}

func (s *stage) startNode() {
	s.t.Helper()
	text := fmt.Sprintf("data_dir: %q\nlisten: 127.0.0.1:0\ndatabases: [{name: app, url: %q}]\n", s.t.TempDir(), s.database)
	cfg, err := config.Parse("test", []byte(text), config.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	ready, ended := make(chan string, 1), make(chan error, 1)
	ctx, stop := context.WithCancel(s.t.Context())
	node := engine.New(cfg, engine.Options{Ready: func(n engine.Node) { ready <- n.Server }})
	go func() { ended <- node.Run(ctx) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Errorf("the node ended: %v", err)
		}
	})
	select {
	case s.server = <-ready:
	case err := <-ended:
		ended <- err
		s.t.Fatalf("the node did not start: %v", err)
	}
	pgtest.Eventually(s.t, 60*time.Second, "the node to be ready", func() bool {
		r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.server+"/readyz", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	})
}

// run starts the program.
func (s *stage) run() {
	s.t.Helper()
	s.program = exec.CommandContext(s.t.Context(), s.binary)
	s.program.Env = append(os.Environ(), "DATABASE_URL="+s.database, "LOCKSTEP_SERVER="+s.server, "CONSUMER=pull-requests")
	s.program.Stderr = &s.said
	if err := s.program.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// kill ends the program without a word.
func (s *stage) kill() {
	if s.program == nil {
		return
	}
	_ = s.program.Process.Kill()
	_ = s.program.Wait()
	s.program = nil
}

// ask calls an address and returns the answer's JSON.
func (s *stage) ask(method, url, token, body string) map[string]any {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := (&http.Client{Timeout: 2 * time.Minute}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s, %v: %s", method, url, answer.Status, err, data)
	}
	out := map[string]any{}
	_ = json.Unmarshal(data, &out) // what is no object is not looked at
	return out
}

// node calls the node's API.
func (s *stage) node(method, path, body string) map[string]any {
	s.t.Helper()
	return s.ask(method, s.server+path, "", body)
}

// settle waits until all that GitHub has is at the program, and has been acked.
func (s *stage) settle() {
	s.t.Helper()
	s.node(http.MethodGet, "/v1/syncs/acme-github/wait?timeout=100s&consumer=pull-requests", "")
}

// truth is GitHub's pull requests, as the program's table has them, by id.
func (s *stage) truth() []string {
	s.t.Helper()
	records, ok := s.github.Records("pull_request")
	if !ok {
		s.t.Fatal("there are no pull requests")
	}
	var rows []string
	for _, body := range records {
		var p struct {
			pullRequest
			ID json.Number `json:"fullDatabaseId"`
		}
		if err := json.Unmarshal(body, &p); err != nil {
			s.t.Fatal(err)
		}
		text, merged := "-", "-"
		if p.Body != nil {
			text = *p.Body
		}
		if p.MergedAt != nil {
			merged = p.MergedAt.UTC().Format(time.DateTime)
		}
		rows = append(rows, strings.Join([]string{p.ID.String(), p.RepositoryID.String(), fmt.Sprint(p.Number), p.Title, text, p.State, p.URL,
			p.CreatedAt.UTC().Format(time.DateTime), p.UpdatedAt.UTC().Format(time.DateTime), merged}, "|"))
	}
	slices.Sort(rows)
	return rows
}

// table is the program's table.
func (s *stage) table() []string {
	s.t.Helper()
	const query = `
		SELECT concat_ws('|', upstream_id, repository_id, number, title, coalesce(body, '-'), state, url,
			to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
			coalesce(to_char(merged_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), '-'))
		FROM github_pull_requests`
	var rows []string
	for _, row := range pgtest.Query(s.t, s.database, query) {
		rows = append(rows, row[0])
	}
	slices.Sort(rows)
	return rows
}

// equal fails unless the table is what GitHub has.
func (s *stage) equal(when string) {
	s.t.Helper()
	got, want := s.table(), s.truth()
	if slices.Equal(got, want) {
		return
	}
	s.t.Errorf("%s: the table has %d rows, GitHub %d pull requests", when, len(got), len(want))
	for _, row := range want {
		if !slices.Contains(got, row) {
			s.t.Errorf("missing: %.200s", row)
		}
	}
	for _, row := range got {
		if !slices.Contains(want, row) {
			s.t.Errorf("extra: %.200s", row)
		}
	}
	s.t.FailNow()
}

// rows counts what a query finds.
func (s *stage) rows(query string) int {
	s.t.Helper()
	return len(pgtest.Query(s.t, s.database, query))
}

// The steps of README.md, against the real thing, and what the program promises there.
func TestTheProgramFollowsGitHub(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.node(http.MethodPost, "/v1/syncs", fmt.Sprintf(`{
		"provider": "github", "name": "acme-github", "collection_ids": ["github:pull_request"], "base_url": %q, "every": "200ms",
		"credential": {"provider": "github", "properties": {"kind": "github_token", "token": "ghp_sandbox1", "organization": "acme"}}
	}`, s.api))
	s.node(http.MethodPost, "/v1/http-consumers", `{
		"name": "pull-requests", "filter_collection_id": "github:pull_request", "deliver_policy": "all", "ack_wait_ms": 1000
	}`)
	s.run()
	s.settle()
	s.equal("after the first read")

	// Killed again and again while pull requests are opened, reviewed and merged.
	for range 4 {
		s.github.Core().Step(150)
		newest := s.rows("SELECT FROM github_pull_request_versions WHERE updated_idx > 0")
		pgtest.Eventually(t, 60*time.Second, "new pull requests", func() bool { return s.rows("SELECT FROM github_pull_request_versions") > newest })
		s.kill()
		s.run()
	}
	s.settle()
	s.equal("after four kills")

	s.refuse()
	s.settle()
	s.equal("after a change that could not be applied for a while")

	// GitHub has no way to delete a pull request. Whoever deletes it from the mirror
	// deletes it here as well, until everything is read again.
	pgtest.Exec(t, s.database, "DELETE FROM github.pull_request WHERE number % 3 = 0")
	pgtest.Eventually(t, 60*time.Second, "the deletes", func() bool { return s.rows("SELECT FROM github_pull_requests WHERE number % 3 = 0") == 0 })
	if left := s.rows("SELECT FROM github_pull_requests"); left != s.rows("SELECT FROM github.pull_request") || left == 0 {
		t.Errorf("after the deletes %d rows are left", left)
	}
	s.node(http.MethodPost, "/v1/syncs/acme-github/resync", "")
	pgtest.Eventually(t, 60*time.Second, "all pull requests to be read again", func() bool { return s.rows("SELECT FROM github.pull_request") == len(s.truth()) })
	s.settle()
	s.equal("after what was deleted came back")
}

// refuse has the program's table refuse a change for a while: it is given back, the
// others go on, and it is applied when that is possible.
func (s *stage) refuse() {
	s.t.Helper()
	pgtest.Exec(s.t, s.database, "ALTER TABLE github_pull_requests ADD CONSTRAINT polite CHECK (title <> 'damn')")
	row := pgtest.Query(s.t, s.database, "SELECT upstream_id, replace(url, 'https://github.com/', '/repos/') FROM github_pull_requests ORDER BY number LIMIT 2")
	path := func(i int) string { return s.api + strings.Replace(row[i][1], "/pull/", "/pulls/", 1) }
	s.ask(http.MethodPatch, path(0), "ghp_sandbox1", `{"title": "damn"}`)
	pgtest.Eventually(s.t, 60*time.Second, "the change to be handed out again", func() bool {
		stats := s.node(http.MethodGet, "/v1/consumers/pull-requests", "")["stats"].(map[string]any)
		return stats["redelivered"].(float64) > 0
	})
	s.ask(http.MethodPatch, path(1), "ghp_sandbox1", `{"title": "well"}`)
	pgtest.Eventually(s.t, 60*time.Second, "another pull request to go on", func() bool {
		return s.rows("SELECT FROM github_pull_requests WHERE title = 'well' AND upstream_id = '"+row[1][0]+"'") == 1
	})
	if s.rows("SELECT FROM github_pull_requests WHERE title = 'damn'") != 0 {
		s.t.Error("the table has what it refuses")
	}
	pgtest.Exec(s.t, s.database, "ALTER TABLE github_pull_requests DROP CONSTRAINT polite")
}
