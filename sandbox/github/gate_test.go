package github_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lockstep/sandbox"
	"lockstep/sandbox/github"
)

func TestAnyTokenOfTheRightFormSignsIn(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, Repositories: -1})
	for given, want := range map[string]int{
		"Bearer ghp_abcdef123456": 200, "token gho_abcdef123456": 200, "Bearer github_pat_11ABC_abcdef": 200, "Bearer nonsense": 401, "Bearer ghs_abcdef123456": 401,
		"Bearer ghp_": 401, "Basic eDpnaHBfYWJjZGVmMTIzNDU2": 200, "Bearer a.b.c": 401,
	} {
		w := h.do("GET", "/user", "", header{"Authorization": given})
		if w.status != want {
			t.Errorf("%q: %d %s", given, w.status, w.text)
		}
		if strings.Contains(w.text, "nonsense") {
			t.Errorf("the token is in the answer: %s", w.text)
		}
	}
}

func TestTokensAreRevokedAndRestricted(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	name := h.first()
	h.AllowToken(token, name)
	if got := h.all("/user/repos"); len(got) != 1 || got[0]["full_name"] != name {
		t.Errorf("%d repositories", len(got))
	}
	h.AllowToken(token)
	if got := h.all("/user/repos"); len(got) != 5 {
		t.Errorf("%d repositories", len(got))
	}
	h.want(200, "POST", "/_sandbox/tokens", `{"token":"`+token+`","revoke":true}`)
	h.want(401, "GET", "/user/repos", "")
}

// An anonymous client sees what is public, writes nothing and has no GraphQL.
func TestWithoutATokenThereIsOnlyWhatIsPublic(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	nobody := header{"Authorization": ""}
	public := 0
	for _, r := range h.all("/user/repos") {
		want := http.StatusOK
		if r["private"] == true {
			want = http.StatusNotFound
		} else {
			public++
		}
		path := "/repos/" + r["full_name"].(string)
		if w := h.do("GET", path, "", nobody); w.status != want {
			t.Errorf("%s: %d", path, w.status)
		}
		if w := h.do("POST", path+"/issues", `{"title":"x"}`, nobody); w.status != http.StatusUnauthorized && want == http.StatusOK {
			t.Errorf("writing to %s: %d", path, w.status)
		}
	}
	if public == 0 || public == 5 {
		t.Errorf("%d public repositories of 5 prove nothing", public)
	}
	if w := h.do("POST", "/graphql", `{"query":"{viewer{login}}"}`, nobody); w.status != http.StatusUnauthorized {
		t.Errorf("GraphQL: %d", w.status)
	}
}

func TestHeadersThatAreWanted(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true})
	for _, c := range []struct {
		headers header
		status  int
		says    string
	}{
		{header{"User-Agent": ""}, 403, "User-Agent"},
		{header{"X-GitHub-Api-Version": "2020-01-01"}, 400, "not a supported version"},
		{header{"Accept": "text/html"}, 415, "Unsupported 'Accept'"},
		{header{"Accept": "application/vnd.github.v3+json"}, 200, ""},
		{header{"Accept": "*/*"}, 200, ""},
	} {
		if w := h.do("GET", "/user", "", c.headers); w.status != c.status || !strings.Contains(w.text, c.says) {
			t.Errorf("%v: %d %s", c.headers, w.status, w.text)
		}
	}
	w := h.do("GET", "/repos/"+h.first()+"/issues?state=all&per_page=1", "", header{"Accept": "application/vnd.github.full+json"})
	if o := w.list()[0]; o["body_html"] == nil || o["body_text"] == nil {
		t.Errorf("full: %v", o)
	}
}

// jwt makes an App's JSON web token.
func jwt(t testing.TB, key string, claims object) string {
	t.Helper()
	block, _ := pem.Decode([]byte(key))
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestAnAppSignsInAsItsInstallation(t *testing.T) {
	t.Parallel()
	clock := sandbox.NewClock()
	h := open(t, github.Options{Unlimited: true, Clock: clock, TokenLife: time.Hour})
	key, err := h.NewAppKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	path := fmt.Sprintf("/app/installations/%d/access_tokens", github.InstallationID)
	ask := func(claims object, body string) answer {
		return h.do("POST", path, body, header{"Authorization": "Bearer " + jwt(t, key, claims)})
	}
	right := object{"iat": now - 60, "exp": now + 540, "iss": fmt.Sprint(github.AppID)}
	for name, claims := range map[string]object{
		"too long":        {"iat": now, "exp": now + 1000, "iss": github.AppID},
		"over":            {"iat": now - 900, "exp": now - 300, "iss": github.AppID},
		"from the future": {"iat": now + 300, "exp": now + 600, "iss": github.AppID},
	} {
		if w := ask(claims, ""); w.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, w.status, w.text)
		}
	}
	if w := ask(object{"iat": now, "exp": now + 60, "iss": "12"}, ""); w.status != http.StatusNotFound {
		t.Errorf("another App: %d", w.status)
	}
	granted := ask(right, "").object()
	signed := header{"Authorization": "token " + granted["token"].(string)}
	list := h.do("GET", "/installation/repositories?per_page=100", "", signed).object()
	if list["total_count"] != 5.0 {
		t.Errorf("%v repositories", list["total_count"])
	}
	if w := h.do("GET", "/user", "", signed); w.status != http.StatusForbidden {
		t.Errorf("an installation is no user: %d", w.status)
	}
	one := ask(right, `{"repositories":["`+strings.TrimPrefix(h.first(), "acme/")+`"],"permissions":{"issues":"read"}}`).object()
	narrow := header{"Authorization": "token " + one["token"].(string)}
	if list := h.do("GET", "/installation/repositories", "", narrow).object(); list["total_count"] != 1.0 || one["repository_selection"] != "selected" {
		t.Errorf("%v", list["total_count"])
	}
	clock.Shift(61 * time.Minute)
	if w := h.do("GET", "/installation/repositories", "", signed); w.status != http.StatusUnauthorized {
		t.Errorf("after an hour: %d", w.status)
	}
	clock.Shift(-61 * time.Minute)
	h.SetInstallation(github.Suspended)
	if w := ask(right, ""); w.status != http.StatusForbidden {
		t.Errorf("suspended: %d", w.status)
	}
	h.SetInstallation(github.Removed)
	if w := ask(right, ""); w.status != http.StatusNotFound {
		t.Errorf("removed: %d", w.status)
	}
}

func TestTheHoursLimit(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{})
	h.Core().Limits().Set(sandbox.Limit{Name: "core", Rate: 4, Per: sandbox.Duration(time.Hour), Window: sandbox.Fixed})
	w := h.get("/user/repos")
	tag := header{"If-None-Match": w.header.Get("ETag")}
	if w.header.Get("X-RateLimit-Limit") != "4" || w.header.Get("X-RateLimit-Remaining") != "3" || w.header.Get("X-RateLimit-Resource") != "core" {
		t.Errorf("%v", w.header)
	}
	for range 10 {
		if w := h.do("GET", "/user/repos", "", tag); w.status != http.StatusNotModified || w.header.Get("X-RateLimit-Remaining") != "3" {
			t.Fatalf("%d, %s left", w.status, w.header.Get("X-RateLimit-Remaining"))
		}
	}
	for range 3 {
		h.get("/rate_limit")
		h.get("/user")
	}
	for _, headers := range []header{nil, tag} {
		w = h.do("GET", "/user/repos", "", headers)
		if w.status != http.StatusForbidden || w.header.Get("X-RateLimit-Remaining") != "0" || !strings.HasPrefix(w.object()["message"].(string), "API rate limit exceeded for user ID") {
			t.Errorf("%d %s", w.status, w.text)
		}
	}
	if w := h.do("GET", "/user/repos", "", header{"Authorization": ""}); w.status != 401 || w.header.Get("X-RateLimit-Limit") != "60" {
		t.Errorf("anonymous: %d %v", w.status, w.header)
	}
	// GraphQL has points of its own.
	if data, errs := h.query(`{viewer{login} rateLimit{cost remaining}}`, nil); errs != nil || data["rateLimit"].(object)["remaining"] != 4999.0 {
		t.Errorf("%v %v", data, errs)
	}
	h.Core().Limits().Set(sandbox.Limit{Name: "graphql", Rate: 1, Per: sandbox.Duration(time.Hour), Window: sandbox.Fixed})
	if _, errs := h.query(`{viewer{login}}`, nil); len(errs) != 1 || errs[0].(object)["type"] != "RATE_LIMITED" {
		t.Errorf("%v", errs)
	}
	if s := h.Core().Log().Summary(); s.Limited["core"] != 2 || s.Limited["graphql"] != 1 {
		t.Errorf("%v", s.Limited)
	}
}

func TestTheSecondaryLimits(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{})
	at := "/repos/" + h.first()
	for n := range 80 {
		h.want(201, "POST", at+"/issues", fmt.Sprintf(`{"title":"%d"}`, n))
	}
	w := h.want(403, "POST", at+"/issues", `{"title":"one more"}`)
	if !strings.Contains(w.text, "secondary rate limit") || w.header.Get("Retry-After") == "" || w.header.Get("X-RateLimit-Remaining") == "0" {
		t.Errorf("%s %v", w.text, w.header)
	}
	h.get(at + "/issues")
	if n := len(h.truth("issue")); n < 80 {
		t.Errorf("%d issues", n)
	}
	h.Core().Limits().Set(sandbox.Limit{Name: "secondary:points", Rate: 3, Per: sandbox.Duration(time.Hour), Window: sandbox.Sliding})
	h.want(403, "GET", at, "")
}
