package connect_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/connect"
	"lockstep/internal/pull/limit"
)

const stripeKey = "sk_test_123456789"

func stripeDefinition(change func(*connect.Definition)) connect.Definition {
	d := connect.Definition{Provider: "stripe", Kind: "stripe_key", Properties: map[string]string{"secret": stripeKey}}
	if change != nil {
		change(&d)
	}
	return d
}

func shop(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../../examples/own-api/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func pemOf(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func rsaKey(t testing.TB) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf(t, key)
}

func resolve(t testing.TB, d connect.Definition) *connect.Account {
	t.Helper()
	a, err := connect.Resolve(d)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wrong is a definition and what is wrong with it: how the lines about it begin.
type wrong struct {
	d    connect.Definition
	want []string
}

func TestWhatIsWrongIsToldWithItsField(t *testing.T) {
	t.Parallel()
	told(t, map[string]wrong{
		"nothing is given": {
			connect.Definition{},
			[]string{"provider: missing, say which API it is: github, rest, stripe"},
		},
		"a provider of a later version": {
			connect.Definition{Provider: "hubspot"},
			[]string{"provider: the provider hubspot is not available in this version, describe its API in a spec and use provider: rest, or use github or stripe"},
		},
		"a misspelt provider": {
			connect.Definition{Provider: "strip", BaseURL: "localhost:80"},
			[]string{
				"base_url: not an address of http or https, write https://host, with a path if the API has one",
				`provider: there is no provider "strip", did you mean stripe?`,
			},
		},
		"everything at once": {
			stripeDefinition(func(d *connect.Definition) {
				d.BaseURL = "https://user:hunter2@gateway"
				d.Spec = "name: x"
				d.Properties = map[string]string{"secret": "pk_live_hunter2", "webhook_secret": "hunter2\n", "acount": "acct_1"}
				d.Collections = []string{"customers", "stripe:charge", "github:issue", "stripe:nothing"}
			}),
			[]string{
				"base_url: the address holds a user or a password, put it into the credential's properties",
				"spec: the provider stripe has a spec of its own, remove it, or use provider: rest",
				"credential.properties.acount: a credential of kind stripe_key has no such property, did you mean account?",
				"credential.properties.secret: it has not the right form, it is a secret or restricted key, sk_… or rk_…, with read access to Events and to what is mirrored",
				"credential.properties.webhook_secret: it holds a line break or another control character, which cannot travel in a header, remove it; it often comes with a file that was read as a whole",
				`collections[0]: stripe has no collection "customers", did you mean customer?`,
				`collections[2]: "github:issue" is not of the provider stripe, write stripe:issue, or leave what is before the colon out`,
				`collections[3]: stripe has no collection "nothing", use `,
			},
		},
		"a missing key": {
			connect.Definition{Provider: "stripe", BaseURL: "https://gateway/?a=b"},
			[]string{
				"base_url: the address holds more than host and path, write https://host, with a path if the API has one",
				"credential.properties.secret: missing, give a secret or restricted key",
			},
		},
	})
}

func TestWhatIsWrongWithACredential(t *testing.T) {
	t.Parallel()
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	told(t, map[string]wrong{
		"the kind of another provider": {
			connect.Definition{Provider: "github", Kind: "stripe_key", Properties: map[string]string{"secret": stripeKey}},
			[]string{`credential.kind: the provider github takes no credential of kind "stripe_key", use github_token or github_app`},
		},
		"an App's properties with a token": {
			connect.Definition{Provider: "github", Kind: "github_token", Properties: map[string]string{"app_id": "1", "repositories": "user/repos"}},
			[]string{
				"credential.properties.app_id: a credential of kind github_token has no such property, use organization, token or webhook_secret",
				"credential.properties.repositories: a credential of kind github_token has no such property, use",
				"credential.properties.token: missing, give a personal access token, github_pat_… or ghp_…",
			},
		},
		"half an App": {
			connect.Definition{Provider: "github", Properties: map[string]string{"app_id": "1", "private_key": "no key"}},
			[]string{
				"credential.properties.private_key: not an RSA key in PEM without a password, give the whole content of the .pem file that GitHub gave you",
				"credential.properties.installation_id: missing, give the number of the App's installation",
			},
		},
		"a key of another sort": {
			connect.Definition{Provider: "github", Kind: "github_app", Properties: map[string]string{"app_id": "1", "installation_id": "2", "private_key": pemOf(t, edwards)}},
			[]string{"credential.properties.private_key: not an RSA key"},
		},
		"an organization that is a path": {
			connect.Definition{Provider: "github", Properties: map[string]string{"token": "ghp_1", "organization": "../user"}},
			[]string{"credential.properties.organization: it has not the right form"},
		},
	})
}

func TestWhatIsWrongWithASpec(t *testing.T) {
	t.Parallel()
	told(t, map[string]wrong{
		"rest without a spec": {
			connect.Definition{Provider: "rest", Spec: " \n"},
			[]string{"spec: missing, the provider rest needs a description of the API, see docs/own-api.md"},
		},
		"faults of a spec": {
			connect.Definition{Provider: "rest", SpecFile: "shop.yaml", Spec: "name: Shop!\nbase_url: https://a\ncolections: {}\ncollections: {order: {list: {path: /orders, page: {kind: nothing}}}}\n"},
			[]string{
				`shop.yaml:1:1: name: "Shop!" is not a name`,
				"shop.yaml:3:1: colections: unknown key, did you mean collections?",
				"shop.yaml:4:58: collections.order.list.page.kind: ",
			},
		},
		"a spec's own address that is none": {
			connect.Definition{Provider: "rest", Spec: shop(t), Properties: map[string]string{"token": "a", "host": "a b/c"}},
			[]string{"shop: base_url is not an address"},
		},
	})
}

// told checks that everything that is wrong is told at once, in order, and without the
// credential.
func told(t *testing.T, cases map[string]wrong) {
	t.Helper()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := connect.Resolve(test.d)
			problems, ok := errors.AsType[connect.Problems](err)
			if !ok || !errors.Is(err, lockstep.ErrInvalid) {
				t.Fatalf("got %v", err)
			}
			for i, p := range problems {
				if i >= len(test.want) || !strings.HasPrefix(p.String(), test.want[i]) {
					t.Errorf("problem %d: %s", i, p)
				}
			}
			if len(problems) != len(test.want) {
				t.Errorf("%d problems, want %d:\n%s", len(problems), len(test.want), strings.Join(test.want, "\n"))
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the credential shows: %v", err)
			}
		})
	}
}

func TestEveryWayToSignIn(t *testing.T) {
	t.Parallel()
	key := rsaKey(t)
	for name, d := range map[string]connect.Definition{
		"stripe":               {Provider: "stripe", Properties: map[string]string{"secret": "rk_live_123456789"}},
		"stripe as it was":     {Provider: "stripe", Kind: "stripe_key", Properties: map[string]string{"secret": stripeKey, "test": "true", "name": "acme"}},
		"github by token":      {Provider: "github", Properties: map[string]string{"token": "ghp_1", "organization": "acme", "webhook_secret": "s"}},
		"github named":         {Provider: "github", Kind: "github_token", Properties: map[string]string{"token": "ghp_1"}},
		"github by App":        {Provider: "github", Properties: map[string]string{"app_id": "1", "installation_id": "2", "private_key": key}},
		"an App as it was":     {Provider: "github", Kind: "github_app", Properties: map[string]string{"account_type": "User", "account_login": "acme", "app_id": "1", "installation_id": "2", "private_key": key}},
		"a key out of the env": {Provider: "github", Properties: map[string]string{"app_id": "1", "installation_id": "2", "private_key": strings.ReplaceAll(key, "\n", `\n`)}},
		"rest":                 {Provider: "rest", Kind: "rest", Spec: shop(t), Properties: map[string]string{"token": "secret"}},
		"rest, elsewhere":      {Provider: "rest", Spec: shop(t), BaseURL: "http://127.0.0.1:1/shop", Properties: map[string]string{"token": "secret"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := resolve(t, d)
			s, err := a.Open(connect.Options{})
			if err != nil {
				t.Fatal(err)
			}
			found, err := s.Collections(t.Context())
			if err != nil || len(found) != len(a.Collections()) || a.Names() != nil {
				t.Errorf("%d collections opened of %d, named %v, %v", len(found), len(a.Collections()), a.Names(), err)
			}
		})
	}
}

func TestCollectionsAreChosenWithAndWithoutPrefix(t *testing.T) {
	t.Parallel()
	a := resolve(t, stripeDefinition(func(d *connect.Definition) {
		d.Collections = []string{"stripe:subscription", "customer", "stripe:customer"}
	}))
	if diff := cmp.Diff([]string{"customer", "subscription"}, a.Collections()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"stripe:customer", "stripe:subscription"}, a.Names()); diff != "" {
		t.Error(diff)
	}
	for _, all := range []string{"*", "stripe:*"} {
		a := resolve(t, stripeDefinition(func(d *connect.Definition) { d.Collections = []string{"customer", all} }))
		if len(a.Collections()) < 30 || a.Names() != nil {
			t.Errorf("%s: %v", all, a.Collections())
		}
	}
	for _, prefix := range []string{"rest", "shop"} {
		a := resolve(t, connect.Definition{Provider: "rest", Spec: shop(t), Properties: map[string]string{"token": "a"}, Collections: []string{prefix + ":line"}})
		if a.Prefix() != "shop" || !slices.Equal(a.Names(), []string{"shop:line"}) {
			t.Errorf("%s: prefix %s, %v", prefix, a.Prefix(), a.Names())
		}
	}
}

func TestLimitsAreTheAccounts(t *testing.T) {
	t.Parallel()
	narrow := limit.Narrow{RequestsPerSecond: 5, MaxConcurrent: 2, Reserve: 0.2}
	for key, rate := range map[string]float64{"sk_test_123456789": 25, "rk_live_123456789": 100} {
		c := resolve(t, stripeDefinition(func(d *connect.Definition) { d.Properties["secret"] = key })).Limits(narrow)
		b := c.Buckets["account"]
		if b.Rate != rate || b.Concurrency != 40 || b.Penalty != time.Second || c.Narrow != narrow {
			t.Errorf("%s: %+v, %+v", key, b, c.Narrow)
		}
		// A bucket of its own for every endpoint.
		if _, shared := c.Buckets["endpoint"]; shared {
			t.Error("all endpoints share a bucket")
		}
		if b, ok := c.Bucket("endpoint:/v1/customers"); !ok || b.Rate != 25 || b.Burst != 5 {
			t.Errorf("endpoint: %+v, %v", b, ok)
		}
		if _, ok := c.Bucket("nobody"); ok {
			t.Error("a bucket that nobody declared")
		}
	}
	c := resolve(t, connect.Definition{Provider: "github", Properties: map[string]string{"token": "a"}}).Limits(limit.Narrow{})
	want := limit.Bucket{
		Rate: 5000, Per: time.Hour, Burst: 200, Penalty: time.Minute,
		LimitHeader: "X-RateLimit-Limit", RemainingHeader: "X-RateLimit-Remaining", ResetHeader: "X-RateLimit-Reset", ResetFormat: "epoch",
	}
	if diff := cmp.Diff(want, c.Buckets["core"]); diff != "" {
		t.Error(diff)
	}
}
