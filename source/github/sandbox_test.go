package github_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"lockstep/locksteptest"
	"lockstep/source"
	"lockstep/source/github"
	"lockstep/source/rest"

	sandbox "lockstep/sandbox/github"
)

const token = "ghp_0123456789abcdef"

// account starts a simulated GitHub and returns it with its address.
func account(t testing.TB, o sandbox.Options) (*sandbox.Sandbox, string) {
	t.Helper()
	o.Unlimited = true
	world, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(world.Handler())
	t.Cleanup(server.Close)
	return world, server.URL
}

func with(t testing.TB, base string, credential map[string]string, transport http.RoundTripper, limiter source.Limiter) *rest.Source {
	t.Helper()
	s, err := github.New(rest.Options{BaseURL: base, Credential: credential, Transport: transport, Limiter: limiter})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func truth(world *sandbox.Sandbox) func(t testing.TB, collection string) map[string]json.RawMessage {
	return func(t testing.TB, collection string) map[string]json.RawMessage {
		t.Helper()
		out := map[string]json.RawMessage{}
		rows, ok := world.Records(collection)
		if !ok {
			t.Fatalf("the sandbox has no %s", collection)
		}
		for id, data := range rows {
			out[id] = data
		}
		return out
	}
}

func TestGitHubKeepsTheContract(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{History: 500, Deletions: -1})
	locksteptest.TestSource(t, locksteptest.Subject{
		New: func(t testing.TB, transport http.RoundTripper, limiter source.Limiter) source.Source {
			return with(t, base, map[string]string{"token": token}, transport, limiter)
		},
		Truth:   truth(world),
		Change:  func(testing.TB) { world.Core().Step(3) },
		Secrets: []string{token},
	})
}
