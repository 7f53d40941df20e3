package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"lockstep"
	"lockstep/internal/capture/wal"
)

// witness remembers which slot a database's log was bound to, in a file beside the
// stream's directory: whoever loses the stream alone still knows that there was one.
type witness struct{ path string }

func (d *dataDir) witness(database string) witness {
	return witness{filepath.Join(d.path, "slot-"+url.PathEscape(database)+".json")}
}

type witnessed struct {
	SystemID uint64 `json:"system_id"`
	Timeline uint32 `json:"timeline"`
	Slot     string `json:"slot"`
	Created  string `json:"created_lsn"`
}

// Load implements [wal.Witness].
func (w witness) Load(context.Context) (wal.Witnessed, error) {
	content, err := os.ReadFile(w.path)
	if os.IsNotExist(err) {
		return wal.Witnessed{}, lockstep.ErrNotFound
	}
	if err != nil {
		return wal.Witnessed{}, err
	}
	var kept witnessed
	if err := json.Unmarshal(content, &kept); err != nil {
		return wal.Witnessed{}, fmt.Errorf("%s is damaged: %w; remove it to go on without it: %w", w.path, err, lockstep.ErrInvalid)
	}
	created, err := lockstep.ParseLSN(kept.Created)
	if err != nil {
		return wal.Witnessed{}, fmt.Errorf("%s is damaged: %w; remove it to go on without it: %w", w.path, err, lockstep.ErrInvalid)
	}
	return wal.Witnessed{SystemID: kept.SystemID, Timeline: kept.Timeline, Slot: kept.Slot, CreatedLSN: created}, nil
}

// Save implements [wal.Witness].
func (w witness) Save(_ context.Context, now wal.Witnessed) error {
	content, err := json.Marshal(witnessed{now.SystemID, now.Timeline, now.Slot, now.CreatedLSN.String()})
	if err != nil {
		return err
	}
	return writeDurably(w.path, append(content, '\n'))
}
