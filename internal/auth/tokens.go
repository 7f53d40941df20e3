package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// Store keeps tokens durably; [Postgres] is one.
type Store interface {
	// Load returns every token, revoked and expired ones too.
	Load(ctx context.Context) ([]Token, error)
	Insert(ctx context.Context, t Token) error
	// Revoke sets when the token was revoked, unless it was before. An unknown id is
	// [lockstep.ErrNotFound].
	Revoke(ctx context.Context, id string, at time.Time) error
	// Touch sets when tokens were last used; earlier times than stored are ignored.
	Touch(ctx context.Context, used map[string]time.Time) error
}

// Config is what tokens are made of.
type Config struct {
	Static  []Static      // from the configuration
	Store   Store         // nil: static tokens only
	Refresh time.Duration // how often stored tokens are read again; default 3 s
	Logger  *slog.Logger  // default: slog.Default
}

// Tokens decides who comes in. It is safe for concurrent use.
type Tokens struct {
	store   Store
	refresh time.Duration
	log     *slog.Logger
	static  []Token

	mu     sync.RWMutex
	loaded bool                 // guarded by mu: stored tokens were read at least once
	byID   map[string]Token     // guarded by mu
	used   map[string]time.Time // guarded by mu: uses that are not stored yet
}

// Open checks the configuration. It reads nothing: see [Tokens.Load] and [Tokens.Run].
func Open(c Config) (*Tokens, error) {
	t := &Tokens{store: c.Store, refresh: c.Refresh, log: c.Logger, byID: map[string]Token{}, used: map[string]time.Time{}}
	if t.refresh <= 0 {
		t.refresh = 3 * time.Second
	}
	if t.log == nil {
		t.log = slog.Default()
	}
	for _, s := range c.Static {
		token, err := s.token()
		if err != nil {
			return nil, err
		}
		t.static = append(t.static, token)
	}
	return t, nil
}

// Load reads the stored tokens once. When it fails, those read before stay.
func (t *Tokens) Load(ctx context.Context) error {
	if t.store == nil {
		return nil
	}
	stored, err := t.store.Load(ctx)
	if err != nil {
		return fmt.Errorf("read API tokens: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	byID := make(map[string]Token, len(stored))
	for _, s := range stored {
		// A token that was revoked here while the store was being read stays revoked.
		if before, ok := t.byID[s.ID]; ok && !before.RevokedAt.IsZero() && s.RevokedAt.IsZero() {
			s.RevokedAt = before.RevokedAt
		}
		byID[s.ID] = s
	}
	// One that was made here in the meantime must not vanish until the next reading.
	for id, before := range t.byID {
		if _, ok := byID[id]; !ok && time.Since(before.CreatedAt) < 2*t.refresh {
			byID[id] = before
		}
	}
	t.byID, t.loaded = byID, true
	return nil
}

// Run reads the stored tokens again and again, and stores when tokens were used,
// until ctx ends. A database that is down is no error: it is logged once.
func (t *Tokens) Run(ctx context.Context) error {
	if t.store == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(t.refresh)
	defer tick.Stop()
	failing := false
	for {
		err := t.Load(ctx)
		if err == nil {
			err = t.flush(ctx)
		}
		if ctx.Err() != nil {
			return t.lastFlush(ctx)
		}
		if err != nil && !failing {
			t.log.WarnContext(ctx, "API tokens cannot be read; those known stay valid", obs.KeyError, err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return t.lastFlush(ctx)
		case <-tick.C:
		}
	}
}

// lastFlush stores the uses that came in since the last round. That they are lost
// when the database is down at that moment is accepted: they are a convenience.
func (t *Tokens) lastFlush(ctx context.Context) error {
	// The run is over, but the uses are still to be stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := t.flush(ctx); err != nil {
		t.log.DebugContext(ctx, "last uses of API tokens were not stored", obs.KeyError, err)
	}
	return nil
}

func (t *Tokens) flush(ctx context.Context) error {
	t.mu.Lock()
	used := t.used
	t.used = map[string]time.Time{}
	t.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	if err := t.store.Touch(ctx, used); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		for id, at := range used {
			if at.After(t.used[id]) {
				t.used[id] = at
			}
		}
		return fmt.Errorf("store the last use of API tokens: %w", err)
	}
	return nil
}

// Open reports whether calls without a token are let in: no token was ever made.
func (t *Tokens) Open() bool {
	if len(t.static) > 0 {
		return false
	}
	if t.store == nil {
		return true
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.loaded && len(t.byID) == 0
}

// Ready returns an error that wraps [lockstep.ErrUnavailable] as long as nobody can
// come in: there are no tokens of the configuration, and stored ones have never been
// read.
func (t *Tokens) Ready() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.static) > 0 || t.store == nil || t.loaded {
		return nil
	}
	return errNotRead()
}

func errNotRead() error {
	return fmt.Errorf("API tokens have not been read from the database yet: %w", lockstep.ErrUnavailable)
}

// Authenticate returns who the bearer of that token is. No token at all is let in
// only when the node is open. Errors are [ErrUnauthenticated], or wrap
// [lockstep.ErrUnavailable] while stored tokens have never been read.
func (t *Tokens) Authenticate(plain string) (Identity, error) {
	if plain == "" {
		if t.Open() {
			return Identity{Name: "local", Scopes: Scopes{"admin"}}, nil
		}
		return Identity{}, t.refusal()
	}
	hash := sha256.Sum256([]byte(plain))
	var found *Token
	for i := range t.static {
		// All are compared, so that the time does not tell which one matched.
		if subtle.ConstantTimeCompare(hash[:], t.static[i].Hash[:]) == 1 {
			found = &t.static[i]
		}
	}
	if found != nil {
		return Identity{Token: found.ID, Name: found.Name, Scopes: found.Scopes}, nil
	}
	return t.stored(plain, hash)
}

func (t *Tokens) stored(plain string, hash [sha256.Size]byte) (Identity, error) {
	id, ok := idOf(plain)
	if !ok {
		return Identity{}, t.refusal()
	}
	t.mu.RLock()
	token, ok := t.byID[id]
	last := t.used[id]
	t.mu.RUnlock()
	now := time.Now()
	if !ok || subtle.ConstantTimeCompare(hash[:], token.Hash[:]) != 1 || !token.Live(now) {
		return Identity{}, t.refusal()
	}
	// Once a second is often enough, and keeps the lock out of the hot path.
	if now.Sub(last) > time.Second {
		t.mu.Lock()
		t.used[id] = now
		t.mu.Unlock()
	}
	return Identity{Token: token.ID, Name: token.Name, Scopes: token.Scopes}, nil
}

// Live reports whether the token with that id still lets its bearer in. It is for what
// somebody began with the token, and goes on with.
func (t *Tokens) Live(id string) bool {
	for i := range t.static {
		if t.static[i].ID == id {
			return true
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	token, ok := t.byID[id]
	return ok && token.Live(time.Now())
}

// refusal tells a wrong token from one that cannot be judged yet.
func (t *Tokens) refusal() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.store != nil && !t.loaded {
		return errNotRead()
	}
	return ErrUnauthenticated
}

// Create makes a token, stores it and returns what its holder sends. A zero expiry
// means that it does not run out.
func (t *Tokens) Create(ctx context.Context, name string, scopes Scopes, expires time.Time) (string, Token, error) {
	if t.store == nil {
		return "", Token{}, fmt.Errorf("create token %q: this node keeps no tokens: %w", name, lockstep.ErrUnavailable)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	if !expires.IsZero() && !expires.After(now) {
		return "", Token{}, fmt.Errorf("create token %q: it would have run out at %s: %w", name, expires.Format(time.RFC3339), lockstep.ErrInvalid)
	}
	plain, token := New(name, scopes, now)
	token.ExpiresAt = expires
	if err := t.store.Insert(ctx, token); err != nil {
		return "", Token{}, fmt.Errorf("create token %q: %w", name, Down(err))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[token.ID] = token
	return plain, token, nil
}

// Revoke ends a token, named by its id or by a name that only one live token has.
func (t *Tokens) Revoke(ctx context.Context, idOrName string) (Token, error) {
	token, err := t.find(idOrName)
	if err != nil {
		return Token{}, err
	}
	if token.Static {
		return Token{}, fmt.Errorf("token %q is defined in the configuration: remove it there and restart: %w", token.Name, lockstep.ErrConflict)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	if err := t.store.Revoke(ctx, token.ID, now); err != nil {
		return Token{}, fmt.Errorf("revoke token %q: %w", token.Name, Down(err))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	token.RevokedAt = now
	t.byID[token.ID] = token
	return token, nil
}

func (t *Tokens) find(idOrName string) (Token, error) {
	var named []Token
	for _, token := range t.List() {
		if token.ID == idOrName {
			return token, nil
		}
		if token.Name == idOrName && token.RevokedAt.IsZero() {
			named = append(named, token)
		}
	}
	switch len(named) {
	case 0:
		return Token{}, fmt.Errorf("token %q: %w", idOrName, lockstep.ErrNotFound)
	case 1:
		return named[0], nil
	}
	return Token{}, fmt.Errorf("%d tokens are called %q: name one by its id: %w", len(named), idOrName, lockstep.ErrConflict)
}

// List returns every token, those of the configuration first, then in the order in
// which they were made.
func (t *Tokens) List() []Token {
	t.mu.RLock()
	stored := make([]Token, 0, len(t.byID))
	for _, token := range t.byID {
		if at, ok := t.used[token.ID]; ok {
			token.LastUsedAt = at
		}
		stored = append(stored, token)
	}
	t.mu.RUnlock()
	slices.SortFunc(stored, func(a, b Token) int {
		if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return append(slices.Clone(t.static), stored...)
}

// closed reports whether it is certain that callers are asked for a token: there is
// one. That stored tokens could not be read yet is no certainty.
func (t *Tokens) closed() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.static) > 0 || len(t.byID) > 0
}

// MayListen returns an error when the address host:port can be reached from other
// machines and it is not certain that callers are asked for a token there. Call it
// after Load; without it only tokens of the configuration count.
func (t *Tokens) MayListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen on %q: %w: write host:port, such as 127.0.0.1:7300: %w", address, err, lockstep.ErrInvalid)
	}
	if Loopback(host) || t.closed() {
		return nil
	}
	return fmt.Errorf("refusing to listen on %s: it can be reached from other machines and there is no API token; "+
		"create one (lockstep token create, or tokens: in the configuration) or listen on 127.0.0.1: %w", address, lockstep.ErrInvalid)
}

// Loopback reports whether the host, a name or an address, is this machine's alone.
// No host means all interfaces. A name other than localhost may change its meaning.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
