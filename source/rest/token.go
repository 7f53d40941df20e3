package rest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"time"

	"lockstep/source"
)

const (
	defaultLifetime = 50 * time.Minute
	// assertionLife is how long a signed assertion is good: GitHub allows ten minutes.
	assertionLife = 9 * time.Minute
	// skew is how far back an assertion is dated, for clocks that differ.
	skew = time.Minute
)

// fetchToken asks for a token in the way of the spec. The caller holds a.mu.
func (s *Source) fetchToken(ctx context.Context, a *signer) (Token, error) {
	q, err := s.tokenRequest(a)
	if err != nil {
		return Token{}, &source.Error{Kind: source.Unauthorized, Message: "sign in: " + err.Error(), Err: err}
	}
	got, _, err := s.onceToken(ctx, q)
	if err != nil {
		return Token{}, err
	}
	t := Token{Access: Path{"access_token"}.text(got.body), Refresh: Path{"refresh_token"}.text(got.body)}
	if a.auth.Kind == "github_app" {
		t.Access = Path{"token"}.text(got.body)
		t.Expires, _ = parseTime(Path{"expires_at"}.text(got.body), "")
	}
	if n, err := strconv.ParseFloat(Path{"expires_in"}.text(got.body), 64); err == nil && n > 0 && n < 1e9 {
		t.Expires = time.Now().Add(time.Duration(n) * time.Second)
	}
	if t.Access == "" {
		return Token{}, &source.Error{Kind: source.Failed, Status: got.status, Message: "sign in: " + s.name() + " answered without a token; check token_url"}
	}
	if t.Expires.IsZero() && a.auth.Kind == "jwt_bearer" {
		life := a.auth.Lifetime
		if life == 0 {
			life = defaultLifetime
		}
		t.Expires = time.Now().Add(life)
	}
	return t, nil
}

// onceToken sends a token request. What refuses it, refuses the credential.
func (s *Source) onceToken(ctx context.Context, c call) (*answer, verdict, error) {
	a, v, err := s.once(ctx, c, "")
	if err != nil || v.then == "" {
		return a, v, err
	}
	e := s.refusal(c.what, a, v)
	if code := (Path{"error"}).text(a.body); code != "" && a.valid {
		e.Message = s.redact(e.Message + " (" + shorten(code) + ")")
	}
	switch v.then {
	case "retry", "limited":
	default:
		e.Kind = source.Unauthorized
		e.Message += "; the credential must be given again"
	}
	return a, v, e
}

func (s *Source) tokenRequest(a *signer) (call, error) {
	auth := a.auth
	c := call{what: "sign in", open: true, scope: a.scope, header: map[string]string{}}
	form := url.Values{}
	switch auth.Kind {
	case "github_app":
		assertion, err := a.assertion(map[string]any{"iss": auth.Issuer.fill(a.scope)})
		if err != nil {
			return c, err
		}
		c.header["Authorization"] = "Bearer " + assertion
		c.request = &Request{Method: "POST", Path: auth.TokenURL}
		return c, nil
	case "jwt_bearer":
		assertion, err := a.assertion(map[string]any{"iss": auth.Issuer.fill(a.scope), "sub": auth.Subject.fill(a.scope), "aud": auth.Audience.fill(a.scope)})
		if err != nil {
			return c, err
		}
		form.Set("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
		form.Set("assertion", assertion)
	default:
		form.Set("grant_type", "refresh_token")
		refresh := a.token.Refresh
		if refresh == "" {
			refresh = auth.RefreshToken.fill(a.scope)
		}
		if refresh == "" {
			return c, errors.New("there is no refresh token; connect the account again")
		}
		form.Set("refresh_token", refresh)
	}
	id, secret := auth.ClientID.fill(a.scope), auth.ClientSecret.fill(a.scope)
	switch {
	case auth.ClientAuth == "basic":
		c.header["Authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
	case id != "":
		form.Set("client_id", id)
		if secret != "" {
			form.Set("client_secret", secret)
		}
	}
	c.request = &Request{Method: "POST", Path: auth.TokenURL, Form: map[string]Template{}}
	maps.Copy(c.request.Form, auth.Extra)
	for name := range form {
		c.request.Form[name] = Template{parts: []part{{text: form.Get(name)}}}
	}
	return c, nil
}

// assertion is a JSON web token signed with RS256.
func (a *signer) assertion(claims map[string]any) (string, error) {
	private, err := parsePrivateKey(a.auth.PrivateKey.fill(a.scope))
	if err != nil {
		return "", err
	}
	now := time.Now()
	claims["iat"], claims["exp"] = now.Add(-skew).Unix(), now.Add(assertionLife).Unix()
	for name, v := range claims {
		if v == "" {
			delete(claims, name)
		}
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(body)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign with the private key: %w", err)
	}
	return signed + "." + encode(signature), nil
}

// parsePrivateKey reads a PEM file's RSA key, PKCS 1 or 8. Errors do not quote it.
func parsePrivateKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("private_key is no PEM file; give the file's whole content")
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("private_key holds no RSA key (PKCS 1 or 8, without a password)")
	}
	k, ok := any.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("private_key is not of RSA")
	}
	return k, nil
}

func asError(err error) (*source.Error, bool) { return errors.AsType[*source.Error](err) }
