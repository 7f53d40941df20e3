package connect_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/internal/connect"
	"lockstep/sandbox/stripe"
	"lockstep/source"
)

// A gateway may have the API below a path.
func TestAnAccountBehindAPathIsRead(t *testing.T) {
	t.Parallel()
	world, err := stripe.New(stripe.Options{Customers: 3, Unlimited: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.StripPrefix("/stripe", world.Handler()))
	t.Cleanup(server.Close)
	seen := &asked{}
	s, err := resolve(t, stripeDefinition(func(d *connect.Definition) {
		d.BaseURL, d.Collections = server.URL+"/stripe", []string{"customer"}
	})).Open(connect.Options{Limiter: seen})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.Collections(t.Context()); err != nil || len(found) != 1 || found[0].Name != "customer" {
		t.Errorf("opened with %v, %v", found, err)
	}
	if account, err := s.Check(t.Context()); err != nil || !strings.HasPrefix(account, "acct_") {
		t.Errorf("signed in as %q, %v", account, err)
	}
	page, err := s.Backfill(t.Context(), "customer", nil)
	if err != nil || len(page.Records) != 3 {
		t.Errorf("%d records, %v", len(page.Records), err)
	}
	// The limiter meets every request, with the bucket of its endpoint.
	if want := []string{"account", "endpoint:/v1/customers"}; !slices.ContainsFunc(seen.all(), func(b []string) bool { return slices.Equal(b, want) }) {
		t.Errorf("asked through %v", seen.all())
	}
	var _ source.Writer = s
	var _ source.Receiver = s
}

// asked is a limiter that lets everything through and remembers it.
type asked struct {
	mu      sync.Mutex
	buckets [][]string
}

func (a *asked) Wait(_ context.Context, buckets []string, _ source.Priority, _ float64) (func(*http.Response), error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.buckets = append(a.buckets, slices.Clone(buckets))
	return func(*http.Response) {}, nil
}

func (a *asked) Penalize(string, time.Duration) {}

func (a *asked) all() [][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.buckets)
}

// Whoever answers in the API's name must not get the credential sent elsewhere: not by
// a redirect, and not by an address of a next page.
func TestNoRedirectTakesTheCredentialElsewhere(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"stripe", "github", "rest"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			var lured sync.Map
			thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { lured.Store(r.URL.Path, r.Header) }))
			t.Cleanup(thief.Close)
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				// 127.0.0.1 with another port is another host.
				http.Redirect(w, r, thief.URL+"/lured", http.StatusTemporaryRedirect)
			}))
			t.Cleanup(api.Close)
			d := connect.Definition{Provider: provider, BaseURL: api.URL}
			switch provider {
			case "stripe":
				d.Properties = map[string]string{"secret": stripeKey}
			case "github":
				d.Properties = map[string]string{"token": "ghp_secret"}
			case "rest":
				d.Spec, d.Properties = shop(t), map[string]string{"token": "secret"}
			}
			a := resolve(t, d)
			s, err := a.Open(connect.Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Check(t.Context())
			if refused, ok := errors.AsType[*source.Error](err); !ok || refused.Kind == source.Retry {
				t.Errorf("check: %v", err)
			}
			if _, err := s.Backfill(t.Context(), a.Collections()[0], nil); err == nil {
				t.Error("a page came from elsewhere")
			}
			lured.Range(func(path, header any) bool {
				t.Errorf("%s was asked for with %v", path, header)
				return false
			})
		})
	}
}
