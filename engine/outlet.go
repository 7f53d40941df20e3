package engine

import (
	"context"
	"fmt"
	"path/filepath"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/kinds"
	"lockstep/internal/obs"
	"lockstep/internal/outlet"
	"lockstep/internal/stage"
)

// openOutlet starts the NATS server that is open to clients, when the configuration
// wants it.
func (e *Engine) openOutlet(ctx context.Context) (func() error, error) {
	address := e.cfg.Stream.Listen
	if address == "" {
		return nil, nil
	}
	if err := e.tokens.MayListen(address); err != nil {
		return nil, fmt.Errorf("stream.listen: %w", err)
	}
	server, err := outlet.Open(ctx, outlet.Config{
		Dir: filepath.Join(e.dir.path, "nats"), Listen: address, Authorize: e.authorizeNATS, Live: e.stillLetIn, Ready: e.tokens.Ready,
		Logger: e.Logger.With(obs.KeyStage, "nats"),
	})
	if err != nil {
		return nil, err
	}
	e.outlet = server
	return server.Close, nil
}

// outletStages stop when nothing is sent any more.
func (e *Engine) outletStages() []stage.Stage {
	if e.outlet == nil {
		return nil
	}
	return []stage.Stage{{Name: "nats", Run: e.outlet.Run}}
}

// ownNATS is where consumers of kind nats without a url publish.
func (e *Engine) ownNATS() *kinds.NATSServer {
	if e.outlet == nil {
		return nil
	}
	return &kinds.NATSServer{InProcess: e.outlet, Token: e.outlet.Secret()}
}

// authorizeNATS lets in who may read. What is published is for all who may: the streams
// of the server are not told apart by token.
func (e *Engine) authorizeNATS(token string) (id string, err error) {
	who, err := e.tokens.Authenticate(token)
	if err != nil {
		return "", err
	}
	if !who.Scopes.Allows(auth.NeedRead, "", "") {
		return "", fmt.Errorf("the token %s may not read: %w", who.Name, lockstep.ErrInvalid)
	}
	return who.Token, nil
}

// stillLetIn reports whether a token that let a client in still does; an empty id is of
// those who came without one.
func (e *Engine) stillLetIn(id string) bool {
	if id == "" {
		return e.tokens.Open()
	}
	return e.tokens.Live(id)
}
