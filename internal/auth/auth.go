// Package auth knows who may call the HTTP API: tokens, their scopes, and where
// they are kept.
//
// # Guarantees
//
//  1. A token made here is ls_<id>_<secret> with 256 random bits; it is shown once.
//     What is stored is its SHA-256, so a dump of the table lets nobody in.
//  2. Tokens are compared in constant time.
//  3. Checking a token touches no database: stored tokens are cached, and go on to
//     work while Postgres is down. A revoked token stops working on the node that
//     revoked it at once, on others within [Config.Refresh].
//  4. Without any token the node is open to everybody who can reach it, which must
//     then be loopback only ([Tokens.MayListen]). It fails closed: as long as stored
//     tokens have never been read, and once there was a token, even if it was revoked
//     or ran out, nobody comes in without one.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrUnauthenticated says that a call came without a token, or with one that is
// unknown, revoked or out of date. Which of these is not told.
var ErrUnauthenticated = errors.New("no valid token")

// Token is what is known of a token; the token itself is not.
type Token struct {
	ID         string
	Name       string
	Hash       [sha256.Size]byte // of the whole token
	Scopes     Scopes
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	LastUsedAt time.Time // zero: not used yet; stored with a delay of [Config.Refresh]
	RevokedAt  time.Time // zero: it is valid
	Static     bool      // from the configuration; it cannot be revoked
}

// Live reports whether the token lets anybody in at that time.
func (t Token) Live(now time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}

// Identity is who makes a call.
type Identity struct {
	Token  string // the token's id; empty when the node is open
	Name   string // the token's name, for the audit; "local" when the node is open
	Scopes Scopes
}

// alphabet has neither upper case nor the underscore that separates a token's parts.
var alphabet = base32.StdEncoding.WithPadding(base32.NoPadding)

// New makes a token. The first value is what its holder sends; it is not kept.
func New(name string, scopes Scopes, now time.Time) (string, Token) {
	var id [8]byte
	var secret [32]byte
	// crypto/rand never returns an error: it ends the process first.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(secret[:])
	t := Token{ID: strings.ToLower(alphabet.EncodeToString(id[:])), Name: name, Scopes: scopes, CreatedAt: now}
	plain := "ls_" + t.ID + "_" + strings.ToLower(alphabet.EncodeToString(secret[:]))
	t.Hash = sha256.Sum256([]byte(plain))
	return plain, t
}

// idOf returns the id inside a token of the form that New makes.
func idOf(plain string) (string, bool) {
	rest, ok := strings.CutPrefix(plain, "ls_")
	if !ok {
		return "", false
	}
	id, secret, ok := strings.Cut(rest, "_")
	return id, ok && id != "" && secret != ""
}

// Static is a token of the configuration: any text.
type Static struct {
	Name   string
	Token  string
	Scopes []string
}

func (s Static) token() (Token, error) {
	if s.Token == "" {
		return Token{}, fmt.Errorf("token %q of the configuration is empty: set its variable, or remove the entry", s.Name)
	}
	scopes, err := ParseScopes(s.Scopes)
	if err != nil {
		return Token{}, fmt.Errorf("token %q of the configuration: %w", s.Name, err)
	}
	return Token{ID: "config:" + s.Name, Name: s.Name, Scopes: scopes, Hash: sha256.Sum256([]byte(s.Token)), Static: true}, nil
}
