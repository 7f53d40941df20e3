package mirror

import (
	"time"

	"lockstep/source"
)

// patience is how far an API's versions may lie ahead of its clock. A version beyond
// that is a mistake: it counts as the time of the look, lest nothing ever be newer.
const patience = time.Minute

// look is what one request showed of a record.
type look struct {
	version time.Time // zero: not said
	rank    source.Rank
	at      time.Time // when the API was asked
	deleted bool
	reason  string
	print   Print
	repair  bool // right whatever its version
	rewrite bool // and to be written although it seems equal
}

// credible is the version by which looks are ordered.
func credible(version, at time.Time) time.Time {
	if version.After(at.Add(patience)) {
		return at
	}
	return version
}

// truthful says whether the look was at the records themselves, not at an event's
// payload or a search index.
func (l look) truthful() bool { return l.rank >= source.RankList }

// tomb is what is known of a record's deletion.
type tomb struct {
	version time.Time // when the API says that it was deleted; zero: it does not say
	gone    time.Time // when it was looked for and not found; zero: the API told
	seen    time.Time // when it was learnt last
	reason  string
}

func tombOf(l look) tomb {
	if l.version.IsZero() {
		return tomb{gone: l.at, seen: l.at, reason: l.reason}
	}
	return tomb{version: credible(l.version, l.at), seen: l.at, reason: l.reason}
}

// releases says whether a record of that look is alive in spite of the tomb.
func (t tomb) releases(l look) bool {
	if l.repair {
		return l.at.After(t.seen)
	}
	version := credible(l.version, l.at)
	seenSince := func(when time.Time) bool { return l.truthful() && l.at.After(when) }
	told := t.version.IsZero() || version.After(t.version) || version.IsZero() && seenSince(t.seen)
	missed := t.gone.IsZero() || version.After(t.gone) || seenSince(t.gone)
	return told && missed
}

// merge adds what another look has told of the deletion, and reports whether that
// was news.
func (t *tomb) merge(o tomb) (news bool) {
	before := *t
	t.version = latest(t.version, o.version)
	t.gone = latest(t.gone, o.gone)
	if !t.version.Equal(before.version) || !t.gone.Equal(before.gone) {
		t.seen = latest(t.seen, o.seen)
		t.reason = o.reason
		return true
	}
	return false
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// standing is what the mirror holds of one id: a row, a tomb, or nothing.
type standing struct {
	row  bool
	look // the row's; zero without one
	dead bool
	tomb // of the deletion; zero if it was none
}

// verdict says what a look at a record means.
type verdict int

const (
	unchanged verdict = iota // equal to what is there
	stale                    // older than what is there
	inserted
	updated
	resurrected
	deleted
	buried // a deletion of what was not there, or more news of it
)

// take brings a look in. It is the only place where it is decided which look wins.
func (s *standing) take(l look) verdict {
	if l.deleted {
		return s.bury(tombOf(l), l.repair)
	}
	if s.dead && !s.releases(l) {
		return stale
	}
	if !s.row {
		v := inserted
		if s.dead {
			v = resurrected
		}
		*s = standing{row: true, look: l}
		return v
	}
	if s.print == l.print && !s.newsOf(l) && !l.rewrite {
		return unchanged
	}
	if !s.older(l) {
		return stale
	}
	s.look = l
	return updated
}

// newsOf says whether the version of a look with the content that is there must be
// kept: without it an older look that comes later could win. A row that was read
// without a version since then has it already.
func (s *standing) newsOf(l look) bool {
	known, version := credible(s.look.version, s.at), credible(l.version, l.at)
	if known.IsZero() {
		return version.After(s.at)
	}
	return version.After(known)
}

// older says whether the row is older than the look.
func (s *standing) older(l look) bool {
	known, version := credible(s.look.version, s.at), credible(l.version, l.at)
	since := !l.at.Before(s.at) // on a tie the one that comes later wins
	switch {
	case l.repair:
		return since
	case version.IsZero(), known.IsZero() && !version.After(s.at):
		return since && (l.truthful() || l.rank >= s.rank)
	case known.IsZero():
		return true
	case !version.Equal(known):
		return version.After(known)
	case l.rank != s.rank:
		return l.rank > s.rank
	}
	return since
}

// doubtful says whether a look at a row shows other content under its version, and
// neither is the object itself. Asked before take.
func (s *standing) doubtful(l look) bool {
	return s.row && !l.deleted && !l.version.IsZero() && l.version.Equal(s.look.version) && l.print != s.print &&
		l.rank < source.RankObject && s.rank < source.RankObject
}

func (s *standing) bury(t tomb, repair bool) verdict {
	if s.row {
		row := s.look
		row.repair = repair
		if t.releases(row) {
			return stale
		}
		*s = standing{dead: true, tomb: t}
		return deleted
	}
	if !s.dead {
		*s = standing{dead: true, tomb: t}
		return buried
	}
	if s.merge(t) {
		return buried
	}
	return unchanged
}
