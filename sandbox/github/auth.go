package github

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The App that is installed in the organization.
const (
	AppID          = 734_211
	AppClientID    = "Iv23liLockstepSbox01"
	InstallationID = 51_204_877
)

// principal is whom a request comes from.
type principal struct {
	name         string // for limits and the log
	id           int64
	account      *account
	anonymous    bool
	app          bool    // a JSON web token of the App itself
	installation bool    // a token of the App's installation
	only         []int64 // repositories; nil: all
	read         bool    // may only read
	expires      time.Time
	revoked      bool
}

// access is who may do what. Guarded by Sandbox.mu.
type access struct {
	tokens    map[string]*principal // those that are not just anybody's
	issued    int
	suspended bool
	removed   bool           // the App was uninstalled
	key       *rsa.PublicKey // nil: signatures are not checked
}

func newAccess(appKey string) *access {
	key, _ := publicKey(appKey) // New has checked it
	return &access{tokens: map[string]*principal{}, key: key}
}

var tokenForm = regexp.MustCompile(`^(ghp|gho|ghu)_[A-Za-z0-9]{6,}$|^github_pat_[A-Za-z0-9_]{6,}$`)

// signIn lets any token of the right form in, but for those that were revoked. Tokens of
// an installation are in only when they were issued, for as long as they live.
func (q *request) signIn(r *http.Request) (*principal, *Error) {
	s := q.s
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if user, password, ok := r.BasicAuth(); ok {
		token = password
		if password == "" || password == "x-oauth-basic" {
			token = user
		}
	}
	denied := &Error{Status: http.StatusUnauthorized, Message: badCredentials}
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case scheme == "":
		return &principal{name: "anonymous", anonymous: true, read: true}, nil
	case strings.Count(token, ".") == 2:
		return s.app(token, q.now)
	}
	if p := s.access.tokens[token]; p != nil {
		if p.revoked || !p.expires.IsZero() && !q.now.Before(p.expires) {
			return nil, denied
		}
		if p.installation && s.access.suspended {
			return nil, forbidden("This installation has been suspended")
		}
		if p.installation && s.access.removed {
			return nil, denied
		}
		return p, nil
	}
	if !tokenForm.MatchString(token) {
		return nil, denied
	}
	return s.user(), nil
}

// user is whom any token stands for.
func (s *Sandbox) user() *principal {
	return &principal{name: "user:" + s.viewer.login, id: s.viewer.id, account: s.viewer}
}

// longestClaim is how far in the future a JSON web token may end.
const longestClaim = 10 * time.Minute

// app checks a JSON web token. The caller holds mu.
func (s *Sandbox) app(token string, now time.Time) (*principal, *Error) {
	bad := func(message string) *Error { return &Error{Status: http.StatusUnauthorized, Message: message} }
	parts := strings.Split(token, ".")
	var head struct{ Alg, Typ string }
	var claims struct {
		Iat, Exp json.Number
		Iss      any
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err = errors.Join(err, part(parts[0], &head), part(parts[1], &claims)); err != nil || head.Alg != "RS256" || len(signature) < 128 {
		return nil, bad("A JSON web token could not be decoded")
	}
	if s.access.key != nil {
		digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		if rsa.VerifyPKCS1v15(s.access.key, crypto.SHA256, digest[:], signature) != nil {
			return nil, bad("A JSON web token could not be decoded")
		}
	}
	iat, err1 := claims.Iat.Int64()
	exp, err2 := claims.Exp.Int64()
	switch issuer := fmt.Sprint(claims.Iss); {
	case err1 != nil || iat > now.Unix()+1:
		return nil, bad("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
	case err2 != nil:
		return nil, bad("'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires")
	case exp <= now.Unix():
		return nil, bad("'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires")
	case time.Unix(exp, 0).After(now.Add(longestClaim + time.Second)):
		return nil, bad("'Expiration time' claim ('exp') is too far in the future")
	case issuer != strconv.Itoa(AppID) && issuer != AppClientID:
		return nil, &Error{Status: http.StatusNotFound, Message: "Integration not found"}
	}
	return &principal{name: "app", id: AppID, app: true}, nil
}

func part(text string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	return d.Decode(into)
}

func publicKey(text string) (*rsa.PublicKey, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no key is one of the choices
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not a PEM file")
	}
	if key, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
		return key, nil
	}
	any, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a public key of RSA")
	}
	key, ok := any.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("not a public key of RSA")
	}
	return key, nil
}

// sees says whether a repository is there for whom asks.
func (p *principal) sees(r *repo) bool {
	switch {
	case r == nil || r.now == nil || r.hidden || p.app:
		return false
	case p.anonymous:
		return !r.now.private
	case p.installation && r.now.owner.kind != kindOrg:
		return false
	case p.only != nil:
		return slices.Contains(p.only, r.id)
	}
	return true
}

const (
	kindOrg  = "Organization"
	kindUser = "User"
)

// refusesWrite is the error of one who may only read.
func (p *principal) refusesWrite() *Error {
	switch {
	case p.anonymous:
		return &Error{Status: http.StatusUnauthorized, Message: "Requires authentication"}
	case p.installation:
		return forbidden("Resource not accessible by integration")
	case p.read:
		return forbidden("Resource not accessible by personal access token")
	}
	return nil
}
