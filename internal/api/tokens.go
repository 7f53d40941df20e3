package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lockstep/internal/auth"
)

// TokenView is a token as the API shows it.
type TokenView struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Scopes     []string   `json:"scopes"`
	State      string     `json:"state" enum:"active,expired,revoked"`
	CreatedAt  *time.Time `json:"created_at" doc:"null for tokens of the configuration"`
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at" doc:"A few seconds late"`
	RevokedAt  *time.Time `json:"revoked_at"`
	ManagedBy  string     `json:"managed_by" enum:"api,file" doc:"file: defined in the configuration"`
}

// CreatedToken is a token that was just made, with the only showing of its secret.
type CreatedToken struct {
	TokenView
	Token   string `json:"token" doc:"What its holder sends. It is not stored and not shown again"`
	Warning string `json:"warning,omitempty" doc:"Something that the maker should know"`
}

// TokenBody makes a token.
type TokenBody struct {
	Name      string    `json:"name" minLength:"1" maxLength:"255"`
	Scopes    []string  `json:"scopes" minItems:"1" doc:"admin, write, read, consume or consume:<name or id of a consumer>"`
	ExpiresAt time.Time `json:"expires_at,omitempty" doc:"Default: never"`
	ExpiresIn string    `json:"expires_in,omitempty" doc:"Instead of expires_at: a length of time, such as 720h" example:"720h"`
}

type (
	noInput struct{}
	idInput struct {
		ID string `path:"id" doc:"Id or name"`
	}
	tokenInput   struct{ Body TokenBody }
	tokenOutput  struct{ Body CreatedToken }
	tokensOutput struct{ Body List[TokenView] }
	emptyOutput  struct{}
)

// List is one page of a list.
type List[T any] struct {
	Data       []T     `json:"data"`
	NextCursor *string `json:"next_cursor" doc:"Pass it as cursor to go on; null at the end"`
}

func viewOfToken(t auth.Token, now time.Time) TokenView {
	v := TokenView{
		ID: t.ID, Name: t.Name, Scopes: t.Scopes, State: "active", ManagedBy: "api",
		CreatedAt: timeOrNull(t.CreatedAt), ExpiresAt: timeOrNull(t.ExpiresAt), LastUsedAt: timeOrNull(t.LastUsedAt), RevokedAt: timeOrNull(t.RevokedAt),
	}
	if t.Static {
		v.ManagedBy = "file"
	}
	switch {
	case !t.RevokedAt.IsZero():
		v.State = "revoked"
	case !t.Live(now):
		v.State = "expired"
	}
	return v
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (a *API) tokenRoutes() {
	at := func(method, path, action string) Route {
		return Route{Method: method, Path: path, Need: auth.NeedAdmin, Audit: action}
	}
	typed(a, at(http.MethodGet, "/v1/tokens", ""), about{"list-tokens", "List API tokens", "tokens", 200}, a.listTokens)
	typedAudited(a, at(http.MethodPost, "/v1/tokens", "token.create"), about{"create-token", "Make an API token", "tokens", 201}, a.createToken)
	typedAudited(a, at(http.MethodDelete, "/v1/tokens/{id}", "token.revoke"), about{"revoke-token", "Revoke an API token", "tokens", 204}, a.revokeToken)
}

func (a *API) listTokens(context.Context, *noInput) (*tokensOutput, error) {
	out := &tokensOutput{Body: List[TokenView]{Data: []TokenView{}}}
	now := time.Now()
	for _, t := range a.tokens.List() {
		out.Body.Data = append(out.Body.Data, viewOfToken(t, now))
	}
	return out, nil
}

func (a *API) createToken(ctx context.Context, in *tokenInput) (*tokenOutput, note, error) {
	b := in.Body
	scopes, err := auth.ParseScopes(b.Scopes)
	if err != nil {
		return nil, note{}, problem(http.StatusUnprocessableEntity, err.Error(), Fault{Message: err.Error(), Location: "body.scopes"})
	}
	expires := b.ExpiresAt
	if b.ExpiresIn != "" {
		d, err := time.ParseDuration(b.ExpiresIn)
		if err != nil || d <= 0 || !expires.IsZero() {
			detail := fmt.Sprintf("expires_in %q must be a length of time such as 720h, and not be together with expires_at", b.ExpiresIn)
			return nil, note{}, problem(http.StatusUnprocessableEntity, detail, Fault{Message: detail, Location: "body.expires_in"})
		}
		expires = time.Now().Add(d)
	}
	wasOpen := a.tokens.Open()
	plain, token, err := a.tokens.Create(ctx, strings.TrimSpace(b.Name), scopes, expires)
	if err != nil {
		return nil, note{}, unprocessable(err)
	}
	out := &tokenOutput{Body: CreatedToken{TokenView: viewOfToken(token, time.Now()), Token: plain}}
	if wasOpen && !scopes.Allows(auth.NeedAdmin, "", "") {
		out.Body.Warning = "this is the node's first token: from now on every call needs one, and this one cannot make others; " +
			"add one with the scope admin to the configuration to get in again"
	}
	return out, note{target: token.ID, after: out.Body.TokenView}, nil
}

func (a *API) revokeToken(ctx context.Context, in *idInput) (*emptyOutput, note, error) {
	token, err := a.tokens.Revoke(ctx, in.ID)
	if err != nil {
		return nil, note{}, err
	}
	return nil, note{target: token.ID, after: viewOfToken(token, time.Now())}, nil
}
