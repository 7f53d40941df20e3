package publish

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/pgdb"
)

// round is one pass: look, decide, act.
type round struct {
	*Reconciler
	mode    mode
	conn    *pgxpool.Conn
	srv     server
	pubs    [2]publication
	reports [2]PublicationState
	all     []*relation
	tables  []listed
	joined  map[uint32]place // by oid: tables that were taken in by this round, with or without their rows
	// patience is the lock timeout for the next statement: it falls with every lock
	// that was not had, so that many locked tables do not hold up the others.
	patience time.Duration
	outcome
}

// outcome is what a round has come to.
type outcome struct {
	changed     int
	outstanding bool          // something may succeed though nothing in the catalog changes
	survey      time.Duration // what looking took
}

func (r *Reconciler) round(ctx context.Context, m mode) (outcome, error) {
	conn, err := r.config.Pool.Acquire(ctx)
	if err != nil {
		return outcome{}, fmt.Errorf("bring publication %s in order: %w", r.config.Publication, err)
	}
	defer conn.Release()
	rd := &round{Reconciler: r, mode: m, conn: conn, patience: r.config.LockTimeout, joined: make(map[uint32]place)}
	if err := rd.run(ctx); err != nil {
		return rd.outcome, fmt.Errorf("bring publication %s in order: %w", r.config.Publication, err)
	}
	r.publish(rd)
	r.said.round(ctx, r.config.Logger, rd)
	return rd.outcome, nil
}

func (rd *round) run(ctx context.Context) error {
	if err := rd.lookAtPublications(ctx); err != nil {
		return err
	}
	rd.correct(ctx)
	rd.keepTrigger(ctx)
	rd.srv.generated = rd.pubs[everything].generated
	rd.recall(ctx)
	began := time.Now()
	found, err := readRelations(ctx, rd.conn, [2]string{rd.pubs[everything].name, rd.pubs[inserts].name}, rd.since())
	if err != nil {
		return err
	}
	rd.all, rd.tables = found.all, rd.srv.list(found.all, rd.config.Patterns)
	rd.survey = time.Since(began)
	rd.noteOutside(ctx)
	rd.demote(ctx)
	rd.widen(ctx)
	rd.takeIn(ctx)
	rd.promote(ctx)
	rd.takeOut(ctx)
	rd.compare(ctx, found)
	rd.report()
	return ctx.Err()
}

// lookAtPublications reads the two, and makes those that are missing.
func (rd *round) lookAtPublications(ctx context.Context) error {
	srv, err := readServer(ctx, rd.conn, rd.config.Slot)
	if err != nil {
		return err
	}
	rd.srv = srv
	if rd.config.Slot != "" && !srv.streaming {
		rd.mode = preparing
	}
	names := [2]string{rd.config.Publication, rd.config.Publication + InsertsSuffix}
	if rd.pubs, err = readPublications(ctx, rd.conn, srv, names); err != nil {
		return err
	}
	missing := 0
	for i := range rd.pubs {
		if p := &rd.pubs[i]; !p.exists {
			if err := p.create(ctx, rd.conn, srv, rd.gapMessage(srv)...); err != nil {
				return err
			}
			missing++
		}
	}
	if missing == 0 {
		return nil
	}
	rd.changed += missing
	rd.pubs, err = readPublications(ctx, rd.conn, srv, names)
	return err
}

// skipsMissing is the version from which Postgres streams on without a publication
// that is missing, instead of failing.
const skipsMissing = 180000

// gapMessage goes into the transaction that makes a publication anew while the slot
// moves: what was written without it is not in the stream, and nothing else would
// tell. Older servers fail at the first such change, which capture notices.
func (rd *round) gapMessage(srv server) []string {
	if rd.mode == preparing || !srv.streaming || srv.version < skipsMissing || rd.config.JoinSecret == "" {
		return nil
	}
	return []string{"SELECT pg_catalog.pg_logical_emit_message(true, " + pgdb.QuoteLiteral(GapPrefix+rd.config.JoinSecret) +
		", " + pgdb.QuoteLiteral(`{"reason":"`+GapRebuilt+`"}`) + ")"}
}

// correct sets those parameters at once that cannot make a write fail.
func (rd *round) correct(ctx context.Context) {
	for i := range rd.pubs {
		p := &rd.pubs[i]
		rd.reports[i] = PublicationState{Name: p.name, Exists: p.exists, Managed: p.managed()}
		wrongInserts := i == inserts && p.wrongOperations()
		if !p.managed() || !p.wrongSafe(rd.srv) && !wrongInserts {
			continue
		}
		with := p.wantsSafe(rd.srv)
		if wrongInserts {
			with = p.wants(rd.srv)
		}
		if rd.set(ctx, p, with) {
			p.viaRoot, p.generated = true, rd.srv.version >= publishesGenerated
			if wrongInserts {
				p.insert, p.update, p.delete, p.truncate = true, false, false, true
			}
		}
	}
}

// widen lets the first publication publish every operation, as soon as no table is
// left in it that this would make fail.
func (rd *round) widen(ctx context.Context) {
	p := &rd.pubs[everything]
	if !p.managed() || !p.wrongOperations() {
		return
	}
	for _, r := range rd.all {
		if p.covers(r) && r.kind == 'r' && rd.srv.identityOf(r).refused {
			rd.reports[everything].add(finding{"publication " + p.name + " does not publish every operation, and cannot yet: updates of " + r.String() + " would fail", ""})
			return
		}
	}
	if rd.set(ctx, p, p.wants(rd.srv)) {
		p.insert, p.update, p.delete, p.truncate = true, true, true, true
	}
}

func (rd *round) set(ctx context.Context, p *publication, with string) bool {
	statement := "ALTER PUBLICATION " + pgdb.QuoteIdent(p.name) + " SET (" + with + ")"
	if err := rd.alter(ctx, statement); err != nil {
		rd.outstanding = true
		rd.reports[p.which].add(finding{"publication " + p.name + " has other settings than it should: " + reasonOf(err), statement + ";"})
		return false
	}
	rd.changed++
	rd.config.Logger.WarnContext(ctx, "a publication had other settings than it should, and was corrected", "publication", p.name, "settings", with)
	return true
}

// report completes the states by what the publications cover now.
func (rd *round) report() {
	for i := range rd.tables {
		t := &rd.tables[i]
		t.state.Published = rd.published(t.relation)
		if known, ok := rd.rows[t.state.OID]; ok {
			t.state.Joined = known.joined
			t.state.add(known.finding)
		}
		if t.state.Class != None {
			rd.explain(t)
		}
	}
	for i := range rd.pubs {
		p := &rd.pubs[i]
		if !p.managed() {
			rd.reports[i].add(p.unmanagedFinding(rd.srv))
		}
		rd.reports[i].Danger = rd.inDanger(p)
	}
}

// published is the best that a publication does for the table now.
func (rd *round) published(r *relation) Class {
	class := None
	for i := range rd.pubs {
		p := &rd.pubs[i]
		if !p.covers(r) {
			continue
		}
		if p.update && p.delete {
			return Full
		}
		class = InsertOnly
	}
	return class
}

// explain says why a table is not published as it could be, when a publication that
// is not ours to alter is the reason.
func (rd *round) explain(t *listed) {
	every, home := &rd.pubs[everything], rd.home(t)
	switch {
	case t.state.Class == InsertOnly && t.state.Published == Full && !every.managed():
		t.state.add(finding{"its updates and deletes fail now, because publication " + every.name + " publishes them", ""})
	case !home.managed() && (t.state.Published == None || t.state.Class == Full && t.state.Published != Full):
		t.state.add(finding{"publication " + home.name + " does not list it, and Lockstep cannot alter it",
			home.adds(t.relation.target()) + "; -- takes a ShareUpdateExclusiveLock on the table"})
	}
}

// inDanger names the tables whose updates fail because of the publication.
func (rd *round) inDanger(p *publication) []string {
	if !p.endangers() {
		return nil
	}
	var names []string
	for _, r := range rd.all {
		if r.kind == 'r' && p.covers(r) && rd.srv.identityOf(r).refused {
			names = append(names, r.String())
		}
	}
	return names
}
