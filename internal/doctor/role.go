package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep/internal/pgdb"
)

// roleChecks are those of what the role may do.
func (db *database) roleChecks() []check {
	return []check{
		{id: "role", run: db.role,
			why: "only a role with REPLICATION may make and read a replication slot"},
		{id: "replication_login", run: db.replicationLogin, limit: 2 * db.check,
			why: "changes come over the replication protocol, which connection poolers do not pass on and pg_hba.conf may refuse"},
		{id: "publication", run: db.publication, fix: db.keepPublications,
			why: "the publications say which changes the slot sends; Lockstep makes two and lists each table by name"},
	}
}

func (db *database) role(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT r.rolreplication, EXISTS (
  SELECT
  FROM pg_catalog.pg_roles g
  WHERE g.rolname IN ('rds_replication', 'rds_superuser') AND pg_catalog.pg_has_role(g.oid, 'USAGE')
)
FROM pg_catalog.pg_roles r
WHERE r.rolname = current_user`
	var replication, granted bool
	if err := db.pool.QueryRow(ctx, query).Scan(&replication, &granted); err != nil {
		return nil, err
	}
	switch {
	case db.who.super:
		return one(pass("%s is a superuser", db.who.role))
	case replication:
		return one(pass("%s has REPLICATION", db.who.role))
	case granted:
		return one(pass("%s has replication by a role of the managed service", db.who.role))
	}
	role := db.who.quoted()
	return one(fail("ALTER ROLE "+role+" REPLICATION;\n-- on RDS instead: GRANT rds_replication TO "+role+";", "%s has no REPLICATION", db.who.role))
}

func (db *database) replicationLogin(ctx context.Context) ([]verdict, error) {
	config, err := pgconn.ParseConfig(db.url)
	if err != nil {
		return nil, fmt.Errorf("the URL is not valid")
	}
	for name := range config.RuntimeParams {
		if strings.HasPrefix(name, "pool_") {
			delete(config.RuntimeParams, name)
		}
	}
	config.RuntimeParams["replication"] = "database"
	config.RuntimeParams["application_name"] = applicationName
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return one(db.refused(err))
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // the answer is here already
	}()
	answers, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return one(db.refused(err))
	}
	if len(answers) != 1 || len(answers[0].Rows) != 1 || len(answers[0].Rows[0]) < 2 {
		return one(fail(poolerRemedy, "the answer to IDENTIFY_SYSTEM is not that of Postgres"))
	}
	row := answers[0].Rows[0]
	return one(pass("the server speaks the replication protocol (system %s, timeline %s)", row[0], row[1]))
}

const poolerRemedy = "# give the URL of Postgres itself, not of a pooler: usually port 5432, not 6432 or 6543"

// refused says why there is no replication connection, although there is another.
func (db *database) refused(err error) verdict {
	refused, ok := refusal(err)
	if !ok {
		return fail(poolerRemedy, "no replication connection: %s", reason(rootOf(err)))
	}
	said := fmt.Sprintf("%s (SQLSTATE %s)", refused.Message, refused.Code)
	role := db.who.quoted()
	switch {
	case refused.Code == "53300" && strings.Contains(refused.Message, "max_wal_senders"):
		return fail(setting("max_wal_senders", "20", ""), "no replication connection: %s", said)
	case refused.Code == "42501" || strings.Contains(refused.Message, "replication role"):
		return fail("ALTER ROLE "+role+" REPLICATION;\n-- on RDS instead: GRANT rds_replication TO "+role+";", "no replication connection: %s", said)
	case refused.Code == "28000":
		return fail(fmt.Sprintf("# a line in pg_hba.conf, with this machine's address, then SELECT pg_reload_conf();\nhost %s %s <address>/32 scram-sha-256", db.who.database, db.who.role),
			"no replication connection: %s", said)
	case strings.Contains(refused.Message, "startup parameter") || refused.Code == "08P01" || refused.Code == "42601" || refused.Code == "0A000":
		return fail(poolerRemedy, "there is a connection pooler at this URL, which does not speak the replication protocol: %s", said)
	}
	return fail("# see the server's log", "no replication connection: %s", said)
}

// rootOf is the error below the driver's, whose text repeats user and host.
func rootOf(err error) error {
	for {
		next, ok := err.(interface{ Unwrap() error })
		if !ok || next.Unwrap() == nil {
			return err
		}
		err = next.Unwrap()
	}
}

// published is one of the two publications in the catalog.
type published struct {
	name, owner string
	owned, ours bool // ours: made by Lockstep
	allTables   bool
	schemas     bool
	whole       bool // the operations are those it should have
	viaRoot     bool
	older       *bool // its row in the catalog is older than everything that the slot will send; nil: no slot
}

// The age compares transaction ids as Postgres does. A row that is older than
// 2^31 transactions looks as if it were from the future.
const readPublished = `
SELECT p.pubname::text, pg_catalog.pg_get_userbyid(p.pubowner)::text, pg_catalog.pg_has_role(p.pubowner, 'USAGE'),
  coalesce(pg_catalog.obj_description(p.oid, 'pg_publication') = 'made and kept by lockstep', false),
  p.puballtables, %s,
  p.pubinsert AND p.pubtruncate AND (p.pubname <> $1::text OR p.pubupdate AND p.pubdelete), p.pubviaroot,
  (SELECT age(p.xmin) < 0 OR age(p.xmin) > age(s.catalog_xmin) FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $3::text AND s.database = current_database() AND s.catalog_xmin IS NOT NULL)
FROM pg_catalog.pg_publication p
WHERE p.pubname IN ($1::text, $2::text)
ORDER BY p.pubname`

func (db *database) readPublished(ctx context.Context) ([]published, error) {
	schemas := `EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n WHERE n.pnpubid = p.oid)`
	if db.who.version < 150000 {
		schemas = "false"
	}
	rows, err := db.pool.Query(ctx, fmt.Sprintf(readPublished, schemas), db.Publication, db.insertsName(), db.Slot)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []published
	for rows.Next() {
		var p published
		if err := rows.Scan(&p.name, &p.owner, &p.owned, &p.ours, &p.allTables, &p.schemas, &p.whole, &p.viaRoot, &p.older); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

func (db *database) publication(ctx context.Context) ([]verdict, error) {
	all, err := db.readPublished(ctx)
	if err != nil {
		return nil, err
	}
	var out []verdict
	if len(all) < 2 {
		v, err := db.missingPublication(ctx, all)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	for _, p := range all {
		out = append(out, db.judgePublication(p))
	}
	return out, nil
}

func (db *database) missingPublication(ctx context.Context, there []published) (verdict, error) {
	missing := db.Publication
	for _, p := range there {
		if p.name == db.Publication {
			missing = db.insertsName()
		}
	}
	const query = `
SELECT pg_catalog.has_database_privilege(current_database(), 'CREATE'),
  EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text AND database = current_database() AND coalesce(wal_status, '') <> 'lost')`
	var mayCreate, slot bool
	if err := db.pool.QueryRow(ctx, query, db.Slot).Scan(&mayCreate, &slot); err != nil {
		return verdict{}, err
	}
	switch {
	case !mayCreate:
		return fail(fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s;", pgdb.QuoteIdent(db.who.database), db.who.quoted()),
			"the publication %s is missing, and %s may not create it", missing, db.who.role), nil
	case slot && missing == db.Publication:
		v := fail("# the next start of Lockstep makes the publication; then repair what was missed:\n"+db.repair(),
			"the slot %s is there, but its publication %s is not: changes since it was dropped cannot be read", db.Slot, missing)
		v.fixable = db.publish != nil
		return v, nil
	}
	return pass("the publication %s will be made at the first start", missing), nil
}

func (db *database) judgePublication(p published) verdict {
	name := pgdb.QuoteIdent(p.name)
	switch {
	case p.allTables:
		return warn("-- Lockstep then makes one that lists tables; what is written in between is missed:\nDROP PUBLICATION "+name+";",
			"the publication %s is FOR ALL TABLES: a new table without a replica identity refuses its first UPDATE because of it, and Lockstep leaves it alone", p.name)
	case p.schemas:
		return warn("-- for each schema that \\dRp+ "+name+" names; Lockstep then lists the tables by name:\nALTER PUBLICATION "+name+" DROP TABLES IN SCHEMA …;",
			"the publication %s takes in whole schemas: a new table without a replica identity refuses its first UPDATE because of it, and Lockstep leaves it alone", p.name)
	case !p.owned:
		return warn("ALTER PUBLICATION "+name+" OWNER TO "+db.who.quoted()+";",
			"the publication %s belongs to %s: Lockstep cannot put new tables into it", p.name, p.owner)
	case !p.whole || !p.viaRoot:
		v := warn("# nothing: Lockstep corrects it when it runs", "the publication %s has other settings than it should", p.name)
		v.fixable = db.publish != nil
		return v
	}
	return pass("the publication %s is there", p.name)
}

// repair is the command that brings back what a gap has cost.
func (db *database) repair() string { return "lockstep backfill --gap --database " + db.Name }
