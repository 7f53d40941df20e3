package github_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lockstep/sandbox"
	"lockstep/sandbox/github"
)

func TestTheSameSeedMakesTheSameWorld(t *testing.T) {
	t.Parallel()
	world := func(seed sandbox.Seed) string {
		clock := sandbox.NewClock()
		clock.Scale(0)
		clock.Set(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
		s, err := github.New(github.Options{Seed: seed, Repositories: 3, History: 120, Clock: clock, Upheaval: 0.2})
		if err != nil {
			t.Fatal(err)
		}
		s.Core().Step(80)
		var all strings.Builder
		for _, c := range s.Collections() {
			n := 0
			records, _ := s.Records(c.Name)
			for id, body := range records {
				n++
				all.WriteString(id)
				all.Write(body)
			}
			if n != c.Count {
				t.Errorf("%s: %d records, counted %d", c.Name, n, c.Count)
			}
		}
		s.Reset()
		return all.String()
	}
	one, two, other := world(5), world(5), world(6)
	if one != two {
		t.Error("two runs differ")
	}
	if one == other {
		t.Error("two seeds do not")
	}
}

// Everything that exists is in the lists, and nothing else.
func TestListsHoldTheTruth(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 600, Upheaval: 0.1})
	h.Core().Step(150)
	for collection, list := range map[string]string{
		"issue": "/issues?state=all", "pull": "/pulls?state=all", "issue_comment": "/issues/comments", "review_comment": "/pulls/comments",
		"label": "/labels", "milestone": "/milestones?state=all", "release": "/releases", "commit": "/commits",
	} {
		found := map[string]bool{}
		for _, r := range h.all("/user/repos?per_page=2") {
			path := "/repos/" + r["full_name"].(string) + list + map[bool]string{true: "&", false: "?"}[strings.Contains(list, "?")] + "per_page=7"
			for _, o := range h.all(path) {
				switch {
				case collection == "commit":
					found[text(r["id"])+"-"+o["sha"].(string)] = true
				case collection != "issue" || o["pull_request"] == nil:
					found[text(o["id"])] = true
				}
			}
		}
		truth := h.truth(collection)
		for id := range truth {
			if !found[id] {
				t.Errorf("%s %s is in no list", collection, id)
			}
		}
		if len(found) != len(truth) || len(found) < 5 {
			t.Errorf("%s: %d listed, %d exist", collection, len(found), len(truth))
		}
	}
}

func TestSeveralAPIsAtOneAddress(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	server := httptest.NewServer(sandbox.Mount(h, other{}))
	t.Cleanup(server.Close)
	h.url = server.URL + "/github"
	all := h.all("/repos/" + h.first() + "/issues?state=all&per_page=5")
	if len(all) < 10 {
		t.Errorf("%d issues by pages whose addresses have the prefix", len(all))
	}
}

// other is an API without anything.
type other struct{}

func (other) Name() string          { return "other" }
func (other) Handler() http.Handler { return http.NotFoundHandler() }

// text is a value as JSON has it, numbers exact.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return strings.Trim(string(b), `"`)
}
