package rest_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/source"
	"lockstep/source/rest"
)

// keeper keeps tokens in memory, and fails while broken.
type keeper struct {
	mu     sync.Mutex
	token  rest.Token
	saved  []string
	broken error
}

func (k *keeper) Load(context.Context) (rest.Token, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.token, nil
}

func (k *keeper) Save(_ context.Context, t rest.Token) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken != nil {
		return k.broken
	}
	k.token = t
	k.saved = append(k.saved, t.Refresh)
	return nil
}

const oauth = `credential: {id: {}, secret: {secret: true}, refresh: {secret: true}}
auth: {kind: oauth_refresh, token_url: /oauth/token, client_id: "{credential.id}", client_secret: "{credential.secret}", refresh_token: "{credential.refresh}"}` + things

// rotating is an OAuth server whose refresh tokens are good once: r0, r1, r2 … The
// n-th access token is tn; current is the one that is accepted.
type rotating struct {
	mu      sync.Mutex
	n       int
	current string
	used    []string
}

func (o *rotating) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path != "/oauth/token" {
		if r.Header.Get("Authorization") != "Bearer "+o.current {
			w.WriteHeader(401)
			return
		}
		write(w, object{"data": []object{{"id": o.current}}})
		return
	}
	given := r.PostFormValue("refresh_token")
	if given != fmt.Sprintf("refresh%d", o.n) || r.PostFormValue("client_secret") != "s3cr3t-of-app" {
		w.WriteHeader(400)
		write(w, object{"error": "invalid_grant", "error_description": given})
		return
	}
	o.n++
	o.used = append(o.used, given)
	o.current = fmt.Sprintf("access%d", o.n)
	write(w, object{"access_token": o.current, "refresh_token": fmt.Sprintf("refresh%d", o.n), "expires_in": 3600})
}

func (o *rotating) revoke() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.current = "nobody has this"
}

// B13: eight workers meet an expired token; one refresh serves them all.
func TestOneRefreshServesAll(t *testing.T) {
	t.Parallel()
	o, keep := &rotating{}, &keeper{}
	f := serve(t, o.ServeHTTP)
	s := openWith(t, f, oauth, rest.Options{Tokens: keep, Credential: map[string]string{"id": "app", "secret": "s3cr3t-of-app", "refresh": "refresh0"}})
	want(t, "first", all(t, s, "thing"), "access1")
	o.revoke()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Backfill(t.Context(), "thing", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want(t, "refreshes", o.used, "refresh0", "refresh1")
	want(t, "saved", keep.saved, "refresh1", "refresh2")
	// A process that is started anew goes on with what was saved.
	o.revoke()
	again := openWith(t, f, oauth, rest.Options{Tokens: keep, Credential: map[string]string{"id": "app", "secret": "s3cr3t-of-app", "refresh": "refresh0"}})
	want(t, "after a restart", all(t, again, "thing"), "access3")
}

// A token that cannot be saved is not used: after a crash it would be lost, and the
// one before it is good no more.
func TestARotatedTokenIsSavedBeforeItsFirstUse(t *testing.T) {
	t.Parallel()
	o, keep := &rotating{}, &keeper{broken: errors.New("disk full")}
	f := serve(t, o.ServeHTTP)
	s := openWith(t, f, oauth, rest.Options{Tokens: keep, Credential: map[string]string{"id": "app", "secret": "s3cr3t-of-app", "refresh": "refresh0"}})
	for range 3 {
		_, err := s.Backfill(t.Context(), "thing", nil)
		_ = kind(t, err, source.Retry)
	}
	want(t, "asked", f.asked(), "POST /oauth/token client_id=app&client_secret=s3cr3t-of-app&grant_type=refresh_token&refresh_token=refresh0")
	keep.mu.Lock()
	keep.broken = nil
	keep.mu.Unlock()
	want(t, "after that", all(t, s, "thing"), "access1")
	want(t, "saved", keep.saved, "refresh1")
}

// B15: who is refused for good does not keep on asking.
func TestARevokedRefreshTokenIsNotHammered(t *testing.T) {
	t.Parallel()
	f := serve(t, (&rotating{n: 7}).ServeHTTP)
	s := openWith(t, f, oauth, rest.Options{Credential: map[string]string{"id": "app", "secret": "s3cr3t-of-app", "refresh": "refresh0"}})
	for range 5 {
		_, err := s.Backfill(t.Context(), "thing", nil)
		if e := kind(t, err, source.Unauthorized); strings.Contains(e.Message, "refresh0") || !strings.Contains(e.Message, "invalid_grant") {
			t.Error(err)
		}
	}
	if asked := f.asked(); len(asked) != 1 {
		t.Errorf("asked %q", asked)
	}
}

func privateKey(t testing.TB) (*rsa.PrivateKey, string) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}))
}

func claims(t testing.TB, assertion string) map[string]any {
	t.Helper()
	var out map[string]any
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no token", assertion)
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err = errors.Join(err, json.Unmarshal(body, &out)); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGitHubAppSignsInWithItsKey(t *testing.T) {
	t.Parallel()
	_, text := privateKey(t)
	var given map[string]any
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/app/installations/42/access_tokens" {
			given = claims(t, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			w.WriteHeader(201)
			write(w, object{"token": "ghs_1", "expires_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
			return
		}
		write(w, object{"data": []object{{"id": r.Header.Get("Authorization")}}})
	})
	s := openWith(t, f, `credential: {app: {}, installation: {}, key: {secret: true}}
auth: {kind: github_app, token_url: "/app/installations/{credential.installation}/access_tokens", issuer: "{credential.app}", private_key: "{credential.key}"}`+things,
		rest.Options{Credential: map[string]string{"app": "123", "installation": "42", "key": text}})
	for range 3 {
		want(t, "signed with", all(t, s, "thing"), "Bearer ghs_1")
	}
	if asked := f.asked(); len(asked) != 4 {
		t.Errorf("asked %q", asked)
	}
	life := given["exp"].(float64) - given["iat"].(float64)
	if given["iss"] != "123" || life <= 0 || life > 600 {
		t.Errorf("claims %v", given)
	}
}

func TestJWTBearerAndTheOthers(t *testing.T) {
	t.Parallel()
	_, text := privateKey(t)
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			c := claims(t, r.PostFormValue("assertion"))
			write(w, object{"access_token": fmt.Sprint(c["iss"], c["sub"], c["aud"])})
			return
		}
		write(w, object{"data": []object{{"id": r.Header.Get("Authorization") + r.Header.Get("X-Key")}}})
	})
	for name, c := range map[string]struct{ auth, want string }{
		"jwt_bearer": {`{kind: jwt_bearer, token_url: /token, issuer: i, subject: s, audience: a, private_key: "{credential.key}"}`, "Bearer isa"},
		"basic":      {`{kind: basic, user: u, password: p}`, "Basic dTpw"},
		"header":     {`{kind: header, header: X-Key, value: v}`, "v"},
		"bearer":     {`{kind: bearer, scheme: Token, token: v}`, "Token v"},
	} {
		s := openWith(t, f, "credential: {key: {secret: true}}\nauth: "+c.auth+things, rest.Options{Credential: map[string]string{"key": text}})
		want(t, name, all(t, s, "thing"), c.want)
	}
}

func TestCredentialsAreCheckedWithoutQuotingThem(t *testing.T) {
	t.Parallel()
	spec := parse(t, "name: test\nbase_url: https://api.example.com\ncredential: {key: {secret: true, pattern: \"sk_.*\", about: a key}}\nauth: {kind: bearer, token: \"{credential.key}\"}"+things)
	for name, given := range map[string]map[string]string{
		"missing": {}, "malformed": {"key": "hunter2"}, "unknown": {"key": "sk_1", "kex": "hunter2"},
	} {
		if _, err := rest.New(spec, rest.Options{Credential: given}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
