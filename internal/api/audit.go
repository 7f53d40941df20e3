package api

import (
	"context"
	"encoding/json"
	"time"

	"lockstep/internal/obs"
)

// Entry is one line of the audit: who did what to what, and what that changed.
type Entry struct {
	At     time.Time
	Actor  string          // the token's name, or "local" on a node without tokens
	Action string          // for example consumer.create
	Target string          // for example the consumer's name
	Before json.RawMessage // nil: there was nothing, or nothing worth telling
	After  json.RawMessage
	Remote string // the caller's address
}

// Auditor keeps the audit. Record is called after the change has been made and
// before the caller is answered.
type Auditor interface {
	Record(ctx context.Context, e Entry) error
}

// note is what a handler adds to the audit's entry of its call.
type note struct {
	target        string
	before, after any
}

// record writes the audit's entry of a call that succeeded. That it cannot be
// written does not undo the change: the entry goes to the log instead.
func (a *API) record(ctx context.Context, rt Route, n note) {
	who := callerOf(ctx)
	e := Entry{
		At: time.Now().UTC(), Actor: who.Name, Action: rt.Audit, Target: n.target,
		Before: rawOf(n.before), After: rawOf(n.after), Remote: who.remote,
	}
	// The change has been made: a caller that has gone must not cost its entry.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if a.audit != nil {
		err := a.audit.Record(ctx, e)
		if err == nil {
			return
		}
		a.log.ErrorContext(ctx, "an entry of the audit could not be stored", obs.KeyActor, e.Actor, obs.KeyAction, e.Action, obs.KeyTarget, e.Target, obs.KeyError, err)
		return
	}
	a.log.InfoContext(ctx, "audit", obs.KeyActor, e.Actor, obs.KeyAction, e.Action, obs.KeyTarget, e.Target)
}

func rawOf(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil // only views of this package come here; they always marshal
	}
	return raw
}
