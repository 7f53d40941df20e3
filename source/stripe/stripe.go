// Package stripe mirrors a Stripe account: its spec, and what only code can say. See
// README.md for collections, quotas and quirks.
package stripe

import (
	"embed"
	"fmt"
	"strings"

	"lockstep/source"
	"lockstep/source/rest"
)

//go:embed stripe.yaml
var files embed.FS

// testRate is how many requests a second Stripe takes in test mode
// (docs.stripe.com/rate-limits).
const testRate = 25

// Spec returns the description of Stripe with the limits of the key's mode. An empty
// key means live mode.
func Spec(key string) (*rest.Spec, error) {
	spec, err := files.ReadFile("stripe.yaml")
	if err != nil {
		return nil, fmt.Errorf("the spec of stripe: %w", err)
	}
	s, err := rest.Parse("stripe.yaml", spec)
	if err != nil {
		return nil, fmt.Errorf("the spec of stripe: %w", err)
	}
	if len(key) > 3 && strings.HasPrefix(key[3:], "test_") {
		s.Limits["account"].Rate = testRate
	}
	return s, nil
}

// New returns a Stripe account as a source. The credential's properties are secret
// (sk_… or rk_…), account (of Connect) and webhook_secret.
func New(o rest.Options) (*rest.Source, error) {
	s, err := Spec(o.Credential["secret"])
	if err != nil {
		return nil, err
	}
	return rest.New(s, o)
}

var _ source.Source = (*rest.Source)(nil)
