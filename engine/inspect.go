package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/config"
	"lockstep/internal/doctor"
	"lockstep/internal/obs"
	"lockstep/internal/pgdb"
)

// inspectWithin bounds the look at a database before it is stored.
const inspectWithin = 10 * time.Second

// inspect looks at a database that is to be captured, with the doctor's eyes. It returns
// whether the slot is there already. What is in the way is an [*api.DatabaseError] that
// names the checks and the remedies.
func (e *Engine) inspect(ctx context.Context, c config.Database) (foundSlot bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, inspectWithin)
	defer cancel()
	report := doctor.Databases(ctx, doctor.Options{Config: &config.Config{Databases: []config.Database{c}}, Online: true, Timeout: inspectWithin})
	wrong := &api.DatabaseError{Name: c.Name}
	for _, f := range report.Findings {
		if f.Status == doctor.Fail {
			wrong.Wrong = append(wrong.Wrong, api.DatabaseFault{Field: fieldOf(f.ID), Message: toldBy(f)})
		}
	}
	if len(wrong.Wrong) > 0 {
		return false, wrong
	}
	if c.Capture == config.CaptureNone {
		return false, nil
	}
	return e.inspectSlot(ctx, c)
}

// fieldOf is the field of a definition that a check is about.
func fieldOf(check string) string {
	switch {
	case strings.HasPrefix(check, "slot"):
		return "slot"
	case check == "publication":
		return "publication"
	}
	return "url"
}

func toldBy(f doctor.Finding) string {
	text := "check " + f.ID + ": " + f.Summary
	if f.Remedy != "" {
		text += "; " + f.Remedy
	}
	return obs.Scrub(text)
}

// inspectSlot looks at what a running node would only wait for.
func (e *Engine) inspectSlot(ctx context.Context, c config.Database) (found bool, err error) {
	pool, err := pgdb.Open(ctx, c.URL.Reveal(), "lockstep check")
	if err != nil {
		return false, &api.DatabaseError{Name: c.Name, Wrong: []api.DatabaseFault{{Field: "url", Message: "check connect: " + obs.Scrub(err.Error())}}}
	}
	defer pool.Close()
	const query = `
SELECT count(*) > 0, coalesce(max(s.active_pid), 0)
FROM pg_catalog.pg_replication_slots s
WHERE s.slot_name = $1::text`
	var reader int32
	if err := pool.QueryRow(ctx, query, c.Slot).Scan(&found, &reader); err != nil {
		return false, fmt.Errorf("look for the slot %s: %w: %w", c.Slot, err, lockstep.ErrUnavailable)
	}
	if reader != 0 {
		return false, &api.DatabaseError{Name: c.Name, Wrong: []api.DatabaseFault{{Field: "slot", Message: fmt.Sprintf(
			"check slot_reader: the slot %s is read by process %d: give this database another slot and publication, or stop that process", c.Slot, reader)}}}
	}
	log, err := e.stream.Log(ctx, c.Name)
	if err != nil {
		return false, fmt.Errorf("open the log of database %s: %w", c.Name, err)
	}
	var system int64
	known := log.Last().SystemID
	// Some hosts do not let the function be called; capture itself asks in another way.
	if known == 0 || pool.QueryRow(ctx, `SELECT system_identifier FROM pg_catalog.pg_control_system()`).Scan(&system) != nil || uint64(system) == known {
		return found, nil
	}
	return false, fmt.Errorf("the stream still holds changes of a database %q of another Postgres cluster, which was deleted: choose another name: %w", c.Name, lockstep.ErrConflict)
}
