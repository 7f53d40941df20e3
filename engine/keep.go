package engine

import (
	"context"
	"errors"
	"fmt"

	"lockstep"
	"lockstep/internal/capture/backfill"
	"lockstep/internal/stream"
)

// openGaps prepares the open gaps of the databases. They lie with the changes, so
// that they are known as long as the changes are.
func (e *Engine) openGaps(ctx context.Context) (func() error, error) {
	states, err := e.stream.States(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the gaps: %w", err)
	}
	e.gaps = backfill.NewGaps(keptGaps{states})
	return nil, nil
}

// keptGaps keeps open gaps beside the consumers' states.
type keptGaps struct{ states *stream.States }

func gapsID(database string) string { return "gaps of " + database }

// Load implements [backfill.Keep].
func (k keptGaps) Load(ctx context.Context, database string) ([]byte, error) {
	value, _, err := k.states.Load(ctx, gapsID(database))
	return value, err
}

// Save implements [backfill.Keep].
func (k keptGaps) Save(ctx context.Context, database string, value []byte) error {
	return replace(ctx, k.states, gapsID(database), value)
}

// seenTables keeps what the tables of a database looked like.
type seenTables struct {
	states   *stream.States
	database string
}

// Load implements [publish.Seen].
func (s seenTables) Load(ctx context.Context) ([]byte, error) {
	value, _, err := s.states.Load(ctx, "tables of "+s.database)
	return value, err
}

// Save implements [publish.Seen].
func (s seenTables) Save(ctx context.Context, value []byte) error {
	return replace(ctx, s.states, "tables of "+s.database, value)
}

// replace saves over whatever is there: these values have one writer, the node that
// holds the data directory or the slot.
func replace(ctx context.Context, states *stream.States, id string, value []byte) error {
	_, revision, err := states.Load(ctx, id)
	if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
		return err
	}
	_, err = states.Save(ctx, id, value, revision)
	return err
}
