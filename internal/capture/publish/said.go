package publish

import (
	"context"
	"log/slog"

	"lockstep/internal/obs"
)

// said remembers what the log says about tables and publications, so that a state is
// logged when it begins and not in every round. It is guarded by Reconciler.turn.
type said struct {
	tables map[uint32]string
	pubs   [2]string
	err    string
	seen   string
}

// mostLines is how many tables one round logs by name.
const mostLines = 20

func (s *said) round(ctx context.Context, log *slog.Logger, rd *round) {
	now := make(map[uint32]string)
	lines, more := 0, 0
	for i := range rd.tables {
		t := &rd.tables[i].state
		if t.Class == None || !t.Degraded() && t.Reason == "" {
			continue
		}
		now[t.OID] = t.Reason
		if s.tables[t.OID] == t.Reason {
			continue
		}
		if lines++; lines > mostLines {
			more++
			continue
		}
		log.WarnContext(ctx, "a table is not captured in full", obs.KeyTable, t.String(),
			"class", string(t.Class), "published", string(t.Published), obs.KeyReason, t.Reason, obs.KeyRemedy, t.Remedy)
	}
	if more > 0 {
		log.WarnContext(ctx, "more tables are not captured in full; lockstep doctor lists them", obs.KeyCount, more)
	}
	s.tables = now
	for i, p := range rd.reports {
		if p.Reason != "" && p.Reason != s.pubs[i] {
			log.WarnContext(ctx, "a publication is not as it should be", "publication", p.Name,
				obs.KeyReason, p.Reason, obs.KeyRemedy, p.Remedy, "danger", few(append([]string(nil), p.Danger...)))
		}
		s.pubs[i] = p.Reason
	}
	s.failure(ctx, log, nil)
}

// memory logs that what the tables look like cannot be loaded or saved, once.
func (s *said) memory(ctx context.Context, log *slog.Logger, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.seen && text != "" {
		log.ErrorContext(ctx, "a table that is rewritten, or a partition that is truncated, may go unnoticed after a restart", obs.KeyError, text)
	}
	s.seen = text
}

// failure logs that rounds fail, or that they work again.
func (s *said) failure(ctx context.Context, log *slog.Logger, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch text {
	case s.err:
	case "":
		log.InfoContext(ctx, "the publications can be kept in order again")
	default:
		log.ErrorContext(ctx, "the publications cannot be kept in order", obs.KeyError, text)
	}
	s.err = text
}
