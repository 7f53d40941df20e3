package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/obs"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
)

// startTimeout bounds what Start asks the database.
const startTimeout = 30 * time.Second

// Start checks a request against the database and begins the job; it returns when
// the job is stored, and Run does the rest.
//
// Errors: [lockstep.ErrInvalid] with the reason and what to do (a view, no usable
// key, a condition that Postgres refuses, a table that the consumer does not select),
// [lockstep.ErrConflict] when a backfill that has not ended holds one of the tables
// for that consumer, or no gap is open, [lockstep.ErrNotFound] for an unknown
// consumer or database, [lockstep.ErrUnavailable] when the database or the control
// plane is away.
func (r *Runner) Start(ctx context.Context, q Request) (Job, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	r.starting.Lock()
	defer r.starting.Unlock()
	if err := r.loadLocked(ctx); err != nil {
		return Job{}, fmt.Errorf("start a backfill: %w", err)
	}
	if q.Gap {
		return r.startRepair(ctx, q)
	}
	return r.start(ctx, q)
}

// Ensure starts the first backfill of a consumer whose definition asks for one: of
// all its tables, unless there ever was one that Ensure started. Errors are those of
// Start; call it again after lockstep.ErrUnavailable.
func (r *Runner) Ensure(ctx context.Context, consumer string) error {
	c, err := r.cfg.Consumers.Lookup(consumer)
	if err != nil {
		return fmt.Errorf("first backfill of consumer %s: %w", consumer, err)
	}
	there, err := r.cfg.Store.Defined(ctx, c.ID)
	if err != nil {
		return fmt.Errorf("first backfill of consumer %s: %w", c.Name, err)
	}
	if there {
		return nil
	}
	_, err = r.Start(ctx, Request{Consumer: c.ID, Origin: OriginDefinition})
	return err
}

func (r *Runner) start(ctx context.Context, q Request) (Job, error) {
	c, err := r.cfg.Consumers.Lookup(q.Consumer)
	if err != nil {
		return Job{}, fmt.Errorf("start a backfill for consumer %q: %w", q.Consumer, err)
	}
	job, err := r.startFor(ctx, q, &c)
	if err != nil {
		return Job{}, fmt.Errorf("start a backfill for consumer %s: %w", c.Name, err)
	}
	return job, nil
}

func (r *Runner) startFor(ctx context.Context, q Request, c *Consumer) (Job, error) {
	q.Where = strings.TrimSpace(q.Where)
	if err := checkCondition(q.Where); err != nil {
		return Job{}, err
	}
	source, err := r.cfg.Database(c.Database)
	if err != nil {
		return Job{}, err
	}
	states, err := survey(ctx, &source)
	if err != nil {
		return Job{}, err
	}
	plan := newRecord(Job{Consumer: c.Name, ConsumerID: c.ID, Database: c.Database, Where: q.Where, Origin: q.Origin}, &source)
	if len(q.Tables) == 0 {
		err = plan.takeAll(ctx, &source, states, c)
	} else {
		err = plan.takeNamed(ctx, &source, states, c, q.Tables)
	}
	if err != nil {
		return Job{}, err
	}
	if err := r.conflict(&plan.Record); err != nil {
		return Job{}, err
	}
	return r.begin(ctx, plan.Record)
}

// plan is a job in the making.
type plan struct{ Record }

func newRecord(j Job, source *Source) *plan {
	j.ID, j.State, j.CreatedAt = uuid.Must(uuid.NewV7()).String(), Running, time.Now().UTC().Truncate(time.Microsecond)
	j.StartedAt = j.CreatedAt
	if j.Origin == "" {
		j.Origin = OriginAPI
	}
	return &plan{Record{Job: j, Seq: source.Log.Last().Seq}}
}

// begin stores the job and lets it run.
func (r *Runner) begin(ctx context.Context, rec Record) (Job, error) {
	rec, err := r.cfg.Store.Create(ctx, rec)
	if err != nil {
		return Job{}, err
	}
	j := newJob(rec)
	r.add(j)
	r.log.InfoContext(ctx, "a backfill begins", rec.attrs(obs.KeyCount, len(rec.Tables))...)
	return j.view(), nil
}

func survey(ctx context.Context, source *Source) ([]publish.TableState, error) {
	states, err := publish.Survey(ctx, source.Pool, source.Patterns)
	if err != nil {
		return nil, unavailable(err)
	}
	return states, nil
}

// unavailable marks an error of a server that may pass.
func unavailable(err error) error {
	if err == nil || !away(err) || errors.Is(err, lockstep.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", err, lockstep.ErrUnavailable)
}

// takeNamed takes the tables that were asked for; one that cannot be read refuses
// the whole request.
func (p *plan) takeNamed(ctx context.Context, source *Source, states []publish.TableState, c *Consumer, names []string) error {
	for _, name := range names {
		t, err := find(ctx, source, states, name)
		if err != nil {
			return err
		}
		if !c.selects(t.Schema, t.Name) {
			return fmt.Errorf("the consumer does not select table %s: add it to its tables: %w", t, lockstep.ErrInvalid)
		}
		if slices.ContainsFunc(p.Places, func(at Place) bool { return at.OID == t.OID }) {
			continue
		}
		if refused := unreadable(t); refused != "" {
			return fmt.Errorf("table %s cannot be backfilled: %s: %w", t, refused, lockstep.ErrInvalid)
		}
		if err := p.take(ctx, source, t); err != nil {
			return err
		}
	}
	return nil
}

// takeAll takes every table that the consumer selects. One that cannot be read is
// listed with its reason.
func (p *plan) takeAll(ctx context.Context, source *Source, states []publish.TableState, c *Consumer) error {
	for _, t := range states {
		if !c.selects(t.Schema, t.Name) || strings.HasSuffix(t.Kind, "view") || t.Kind == "sequence" {
			continue
		}
		if refused := unreadable(t); refused != "" {
			p.add(t, TableProgress{State: Failed, Reason: refused})
			continue
		}
		if err := p.take(ctx, source, t); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) add(t publish.TableState, progress TableProgress) {
	progress.Name = t.String()
	p.Tables = append(p.Tables, progress)
	p.Places = append(p.Places, Place{OID: t.OID, Schema: t.Schema, Name: t.Name})
	p.Total += progress.Total
}

// take adds a table with an estimate of its rows, for which Postgres must take the
// condition.
func (p *plan) take(ctx context.Context, source *Source, t publish.TableState) error {
	total, err := estimate(ctx, source, t, p.Where)
	refused, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
	case ok && refused.Code == stateDenied:
		return fmt.Errorf("read %s: %s: run GRANT SELECT ON it TO the role in the database's URL: %w", t, refused.Message, lockstep.ErrInvalid)
	case ok && !passes(refused.Code) && p.Where != "":
		return fmt.Errorf("Postgres refuses the condition %s on table %s: %s (SQLSTATE %s): %w", p.Where, t, refused.Message, refused.Code, lockstep.ErrInvalid) //nolint:staticcheck // a name
	default:
		return unavailable(fmt.Errorf("look at table %s: %w", t, err))
	}
	p.add(t, TableProgress{State: Waiting, Total: total})
	return nil
}

// find returns the table of that exact name, or says why it cannot be had.
func find(ctx context.Context, source *Source, states []publish.TableState, name string) (publish.TableState, error) {
	exact, err := pattern.Parse([]string{name})
	if err != nil {
		return publish.TableState{}, err
	}
	for _, t := range states {
		if exact.Names(t.Schema, t.Name) {
			return t, nil
		}
	}
	all, err := publish.Survey(ctx, source.Pool, exact)
	if err != nil {
		return publish.TableState{}, unavailable(err)
	}
	for _, t := range all {
		switch {
		case !exact.Names(t.Schema, t.Name):
		case t.Class == publish.None:
			return t, fmt.Errorf("%s cannot be backfilled: %s; %s: %w", t, t.Reason, t.Remedy, lockstep.ErrInvalid)
		case !source.Patterns.Match(t.Schema, t.Name):
			return t, fmt.Errorf("table %s is not captured: add it to tables of the database in the configuration: %w", t, lockstep.ErrInvalid)
		default:
			return t, fmt.Errorf("table %s is a partition, and its rows go out as those of the table above it: name that one: %w", t, lockstep.ErrInvalid)
		}
	}
	return publish.TableState{}, fmt.Errorf(`there is no table %s: write schema.table, with each part in double quotes where the name needs them: %w`, name, lockstep.ErrInvalid)
}

// unreadable says why a table's rows cannot be read in pages, or nothing.
func unreadable(t publish.TableState) string {
	switch {
	case t.Class == publish.None:
		return t.Reason + "; " + t.Remedy
	case len(t.KeyColumns) == 0:
		return "it has no key by which its rows could be read in pages and told from their changes; ALTER TABLE " + pgdb.QuoteIdent(t.Schema, t.Name) + " ADD PRIMARY KEY (…);"
	case t.Kind == "partitioned table" && t.Key != lockstep.KeyPrimary:
		return "its partitions have keys of their own, so that two of them may hold the same one; ALTER TABLE " + pgdb.QuoteIdent(t.Schema, t.Name) + " ADD PRIMARY KEY (…);"
	}
	return ""
}

// estimate asks Postgres how many rows it expects, which checks the condition too.
func estimate(ctx context.Context, source *Source, t publish.TableState, where string) (uint64, error) {
	only := "ONLY "
	if t.Kind == "partitioned table" {
		only = ""
	}
	text := "SELECT FROM " + only + pgdb.QuoteIdent(t.Schema, t.Name) + " AS " + pgdb.QuoteIdent(t.Name)
	if where != "" {
		text += " WHERE (" + where + "\n)"
	}
	conn, err := source.Pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	pg := conn.Conn().PgConn()
	settings := fmt.Sprintf("BEGIN READ ONLY; SET LOCAL standard_conforming_strings = on; SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d",
		statementTimeout.Milliseconds(), lockTimeout.Milliseconds())
	if err := exec(ctx, pg, settings); err != nil {
		return 0, err
	}
	// The extended protocol takes one statement only, whatever the condition holds.
	found := pg.ExecParams(ctx, "EXPLAIN (FORMAT JSON) "+text, nil, nil, nil, nil).Read()
	if err := errors.Join(found.Err, exec(ctx, pg, "ROLLBACK")); err != nil {
		return 0, err
	}
	var plans []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		} `json:"Plan"`
	}
	if len(found.Rows) != 1 || json.Unmarshal(found.Rows[0][0], &plans) != nil || len(plans) != 1 {
		return 0, nil
	}
	return uint64(plans[0].Plan.Rows), nil
}

// conflict refuses a job over tables that another one is at work on.
func (r *Runner) conflict(rec *Record) error {
	for _, j := range r.active(rec.Database) {
		v := j.view()
		if v.ConsumerID != rec.ConsumerID || v.Gap != rec.Gap || v.State.Ended() {
			continue
		}
		for i := range rec.Places {
			if !rec.Tables[i].State.Ended() && j.holds(rec.Places[i].OID) {
				return fmt.Errorf("backfill %d of the consumer (%s) is at work on table %s: wait for it, resume it, or cancel it: %w", v.N, v.State, rec.Tables[i].Name, lockstep.ErrConflict)
			}
		}
	}
	return nil
}

func (j *job) holds(oid uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.rec.Places {
		if j.rec.Places[i].OID == oid && !j.rec.Tables[i].State.Ended() {
			return true
		}
	}
	return false
}
