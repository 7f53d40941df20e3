package client

import (
	"context"
	"net/http"
	"time"
)

// Token is what is known of a token. Its text is known only when it is made.
type Token struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Token      string     `json:"token,omitempty"` // set by CreateToken only
	Scopes     []string   `json:"scopes"`
	State      string     `json:"state"`      // active, expired or revoked
	CreatedAt  *time.Time `json:"created_at"` // nil: a token of the configuration
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	RevokedAt  *time.Time `json:"revoked_at"`
	ManagedBy  string     `json:"managed_by"`        // api, or file: the configuration
	Warning    string     `json:"warning,omitempty"` // of CreateToken: what the maker should know
}

// NewToken is what a token is asked to be.
type NewToken struct {
	Name      string     `json:"name"`
	Scopes    []string   `json:"scopes"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// CreateToken makes a token. Its text is in the result and nowhere else.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (Token, error) {
	var out Token
	err := c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "tokens"}, body: t}, &out)
	return out, err
}

// Tokens returns all tokens, without their texts.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return all[Token](ctx, c, "v1", "tokens")
}

// RevokeToken ends the token with that id or name.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: []string{"v1", "tokens", id}}, nil)
}
