package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"lockstep/internal/auth"
)

// tokenCache is a store of tokens that remembers in the data directory what it read
// last, hashes only: so workers are let in while the control plane is away, also
// after a restart. A token that was revoked in the meantime is valid until then.
type tokenCache struct {
	auth.Store
	path string

	mu   sync.Mutex
	last []byte // guarded by mu: the file's content
	warm bool   // guarded by mu: the store itself has been read
}

func newTokenCache(store auth.Store, dir string) *tokenCache {
	return &tokenCache{Store: store, path: filepath.Join(dir, "tokens.json")}
}

// recall reads what is remembered into the tokens. There may be nothing.
func (c *tokenCache) recall(ctx context.Context, tokens *auth.Tokens) error {
	data, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the remembered tokens: %w", err)
	}
	c.mu.Lock()
	c.last = data
	c.mu.Unlock()
	return tokens.Load(ctx)
}

// Load implements [auth.Store]: from the file until Warm, then from the store.
func (c *tokenCache) Load(ctx context.Context) ([]auth.Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.warm && c.last != nil {
		var tokens []auth.Token
		if err := json.Unmarshal(c.last, &tokens); err != nil {
			return nil, fmt.Errorf("read the remembered tokens in %s: %w; remove the file to go on without them", c.path, err)
		}
		return tokens, nil
	}
	tokens, err := c.Store.Load(ctx)
	if err != nil {
		return nil, err
	}
	return tokens, c.remember(tokens)
}

// warmed says that the store can be read from now on.
func (c *tokenCache) warmed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warm = true
}

func (c *tokenCache) remember(tokens []auth.Token) error {
	data, err := json.Marshal(tokens)
	if err != nil {
		return err
	}
	if slices.Equal(data, c.last) {
		return nil
	}
	if err := writeDurably(c.path, data); err != nil {
		return fmt.Errorf("remember the tokens: %w", err)
	}
	c.last = data
	return nil
}
