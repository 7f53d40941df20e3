package publish

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/obs"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
)

// Trigger says whether tables are taken in by the transaction that makes them.
type Trigger int

const (
	// NoTrigger leaves new tables to the rounds: they are found a little later.
	NoTrigger Trigger = iota
	// DDLTrigger keeps an event trigger in the database, where the role may make one
	// (superusers, and what stands for them at hosts). A table is then published from
	// its first row on, and one whose key is made or dropped is moved by the very
	// statement. The trigger's function cannot make a statement fail, and waits for
	// a lock for a tenth of a second at most; what it leaves, the rounds do.
	DDLTrigger
)

const triggerSuffix = "_ddl"

// The identity is judged as in classify, only more carefully: what is left out here
// is published for inserts until the next round. CREATE TABLE AS is not among the
// tags: its rows are written before the trigger fires, so the table must join with
// them. A table that is in neither publication is left to the rounds for the same
// reason, unless this statement made it.
const triggerBody = `
DECLARE
  t record;
  target text;
  other text;
BEGIN
  FOR t IN
    SELECT c.oid, n.nspname, c.relname, d.tag,
      CASE c.relreplident
        WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
        WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
        WHEN 'f' THEN NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped)
        ELSE false
      END AS usable
    FROM (SELECT objid, min(command_tag) AS tag FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass GROUP BY objid) d
    JOIN pg_class c ON c.oid = d.objid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND n.nspname <> 'lockstep'
      AND %[1]s
  LOOP
    BEGIN
      target := CASE WHEN t.usable THEN %[2]s ELSE %[3]s END;
      other := CASE WHEN t.usable THEN %[3]s ELSE %[2]s END;
      IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = t.oid AND p.pubname = target) THEN
        CONTINUE;
      END IF;
      IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = t.oid AND p.pubname = other) THEN
        EXECUTE format('ALTER PUBLICATION %%I DROP TABLE ONLY %%I.%%I', other, t.nspname, t.relname);
      ELSIF t.tag <> 'CREATE TABLE' THEN
        CONTINUE;
      END IF;
      EXECUTE format('ALTER PUBLICATION %%I ADD TABLE ONLY %%I.%%I', target, t.nspname, t.relname);
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  NULL;
END `

// present is the function's text as the database has it, and whether the trigger is
// switched off: somebody's wish that is respected.
const readTriggerSQL = `
SELECT f.prosrc, t.evtenabled = 'D'
FROM pg_catalog.pg_event_trigger t
JOIN pg_catalog.pg_proc f ON f.oid = t.evtfoid
WHERE t.evtname = $1::text`

// keepTrigger brings the event trigger up to date, once per process: later rounds
// would only ask the same again.
func (rd *round) keepTrigger(ctx context.Context) {
	if rd.config.Trigger != DDLTrigger || rd.triggered || !rd.pubs[everything].managed() || !rd.pubs[inserts].managed() {
		return
	}
	rd.triggered = true
	err := rd.makeTrigger(ctx)
	if pgdb.MadeMeanwhile(err) {
		err = rd.makeTrigger(ctx)
	}
	if err == nil {
		return
	}
	rd.config.Logger.InfoContext(ctx, "no event trigger tells of new tables: they are found by looking, and what is written to them in that moment is known by its outcome",
		obs.KeyReason, reasonOf(err))
}

var errSwitchedOff = errors.New("it was switched off by ALTER EVENT TRIGGER")

func (rd *round) makeTrigger(ctx context.Context) error {
	name := triggerName(rd.config.Publication)
	body := fmt.Sprintf(triggerBody, rd.config.Patterns.Condition("n.nspname", "c.relname", pgdb.QuoteLiteral), pgdb.QuoteLiteral(rd.pubs[everything].name), pgdb.QuoteLiteral(rd.pubs[inserts].name))
	var source string
	var off bool
	err := rd.conn.QueryRow(ctx, readTriggerSQL, name).Scan(&source, &off)
	switch {
	case err == nil && off:
		return errSwitchedOff
	case err == nil && source == body:
		return nil
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	function := pgdb.QuoteIdent(pattern.Own, name)
	return together(ctx, rd.conn, []string{
		lockTimeout(rd.config.LockTimeout),
		pgdb.LockSchema,
		"CREATE SCHEMA IF NOT EXISTS " + pgdb.QuoteIdent(pattern.Own),
		"CREATE OR REPLACE FUNCTION " + function + "() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER" +
			" SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS " + pgdb.QuoteLiteral(body),
		"DROP EVENT TRIGGER IF EXISTS " + pgdb.QuoteIdent(name),
		"CREATE EVENT TRIGGER " + pgdb.QuoteIdent(name) + " ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE') EXECUTE FUNCTION " + function + "()",
		"COMMENT ON EVENT TRIGGER " + pgdb.QuoteIdent(name) + " IS " + pgdb.QuoteLiteral(madeHere+": puts new tables into its publications; cannot make a statement fail; may be dropped or disabled"),
	})
}

func triggerName(publication string) string {
	return publication[:min(len(publication), maxName-len(triggerSuffix))] + triggerSuffix
}
