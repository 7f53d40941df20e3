package engine

import (
	"fmt"
	"net/http"

	"lockstep/internal/console"
	"lockstep/internal/obs"
)

// console makes the pages, which call the API that is made after them.
func (e *Engine) console(calls http.Handler) (http.Handler, error) {
	key, err := e.sealer()
	if err != nil {
		return nil, err
	}
	pages, err := console.New(console.Config{
		API: calls, Sealer: key, Logger: e.Logger.With(obs.KeyStage, "console"),
	})
	if err != nil {
		return nil, fmt.Errorf("make the console: %w", err)
	}
	return pages, nil
}
