package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/auth"
)

func TestScopesAllowExactlyWhatTheTableSays(t *testing.T) {
	t.Parallel()
	const id, name = "0191f0a0-0000-7000-8000-000000000001", "orders"
	needs := []auth.Need{auth.NeedNothing, auth.NeedRead, auth.NeedPeek, auth.NeedConsume, auth.NeedWrite, auth.NeedAdmin}
	for scopes, want := range map[string]string{ // one letter per need above: y or n
		"admin":              "yyyyyy",
		"write":              "yyyyyn",
		"read":               "yyynnn",
		"consume":            "ynyynn",
		"consume:" + name:    "ynyynn",
		"consume:" + id:      "ynyynn",
		"consume:other":      "ynnnnn",
		"consume:order":      "ynnnnn",
		"consume:":           "ynnnnn",
		"Admin":              "ynnnnn",
		"":                   "ynnnnn",
		"read,consume:" + id: "yyyynn",
	} {
		for i, need := range needs {
			got := auth.Scopes(strings.Split(scopes, ",")).Allows(need, id, name)
			if got != (want[i] == 'y') {
				t.Errorf("scopes %q, need %s: %v", scopes, need, got)
			}
		}
	}
	if (auth.Scopes{"consume:"}).Allows(auth.NeedConsume, "", "") {
		t.Error("an empty consumer matched an empty scope")
	}
}

func TestParseScopesRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for _, bad := range [][]string{nil, {}, {"root"}, {"consume:"}, {"admin", ""}} {
		if _, err := auth.ParseScopes(bad); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("ParseScopes(%q) = %v; want ErrInvalid", bad, err)
		}
	}
	got, err := auth.ParseScopes([]string{"read", "consume:a", "read"})
	if err != nil || len(got) != 2 {
		t.Errorf("ParseScopes = %v, %v; want each scope once", got, err)
	}
}

func TestNewTokensHaveTheDocumentedForm(t *testing.T) {
	t.Parallel()
	a, ta := auth.New("a", auth.Scopes{"read"}, time.Now())
	b, _ := auth.New("a", auth.Scopes{"read"}, time.Now())
	parts := strings.Split(a, "_")
	if a == b || len(parts) != 3 || parts[0] != "ls" || parts[1] != ta.ID || len(parts[2]) < 51 {
		t.Errorf("token %d bytes, %d parts, id %q; want ls_<id>_<52 characters of base32>, never the same", len(a), len(parts), ta.ID)
	}
	if bytes.Contains(ta.Hash[:], []byte(parts[2][:4])) || strings.Contains(fmt.Sprintf("%+v", ta), parts[2]) {
		t.Error("the record of a token holds its secret")
	}
}

func TestStaticTokens(t *testing.T) {
	t.Parallel()
	tokens, err := auth.Open(auth.Config{Static: []auth.Static{
		{Name: "ci", Token: "any text at all", Scopes: []string{"read"}},
		{Name: "boss", Token: "another", Scopes: []string{"admin"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	who, err := tokens.Authenticate("any text at all")
	if err != nil || who.Name != "ci" || who.Scopes.Allows(auth.NeedWrite, "", "") {
		t.Errorf("Authenticate = %+v, %v", who, err)
	}
	for _, wrong := range []string{"", "any text at al", "any text at all ", "ls_x_y", "Another"} {
		if _, err := tokens.Authenticate(wrong); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("Authenticate(%q) = %v; want ErrUnauthenticated", wrong, err)
		}
	}
	if tokens.Open() {
		t.Error("a node with a token is open")
	}
}

func TestBadStaticTokensAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []auth.Static{{Name: "empty", Scopes: []string{"read"}}, {Name: "scope", Token: "x", Scopes: []string{"rot"}}, {Name: "none", Token: "x"}} {
		if _, err := auth.Open(auth.Config{Static: []auth.Static{bad}}); err == nil || !strings.Contains(err.Error(), bad.Name) {
			t.Errorf("Open with %q: %v; want an error that names it", bad.Name, err)
		}
	}
}

func TestListeningBeyondLoopbackNeedsAToken(t *testing.T) {
	t.Parallel()
	open, _ := auth.Open(auth.Config{})
	closed, _ := auth.Open(auth.Config{Static: []auth.Static{{Name: "a", Token: "a", Scopes: []string{"admin"}}}})
	for address, loopback := range map[string]bool{
		"127.0.0.1:7300": true, "127.8.8.8:1": true, "[::1]:7300": true, "localhost:7300": true, "LocalHost:0": true,
		"0.0.0.0:7300": false, ":7300": false, "[::]:7300": false, "192.168.1.1:7300": false, "example.com:80": false,
		"localhost.example.com:80": false, "[::ffff:10.0.0.1]:80": false, "[::ffff:127.0.0.1]:80": true,
	} {
		if err := open.MayListen(address); (err == nil) != loopback {
			t.Errorf("without a token, %s: %v", address, err)
		}
		if err := closed.MayListen(address); err != nil {
			t.Errorf("with a token, %s: %v", address, err)
		}
	}
	if err := open.MayListen("7300"); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("an address without a host: %v; want ErrInvalid", err)
	}
}
