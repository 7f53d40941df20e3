package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/config"
	"lockstep/internal/pgdb"
)

// depth says how much is looked at.
type depth int

const (
	fast     depth = iota // what a few queries tell
	thorough              // the tables too
)

// database is one database under examination. Its checks run one after the other.
type database struct {
	config.Database
	*limits
	url  string
	home bool // it holds the schema lockstep
	// nodeRuns: a node holds the data directory
	nodeRuns bool
	gaps     func(context.Context, string) ([]string, error)
	publish  func(context.Context, string) error // nil: publications are not fixed

	pool *pgxpool.Pool // nil until the check connect has passed
	who  identity
	slot *slot    // as the check slot found it; nil: there is none
	seen *surveys // what the check tables found
}

// identity is the role and the server, as the first query tells.
type identity struct {
	version  int // server_version_num
	role     string
	database string
	super    bool
	standby  bool
}

// quoted is the role as SQL names it.
func (i identity) quoted() string { return pgdb.QuoteIdent(i.role) }

func (o Options) database(c config.Database, d depth) group {
	db := &database{
		Database: c, limits: o.limits, url: c.URL.Reveal(), home: c.Name == o.Config.Database, gaps: o.Gaps, publish: o.Publish,
		nodeRuns: o.Online || o.nodeHolds(), seen: &surveys{},
	}
	if db.url == "" {
		db.url = o.privateURL(c.Name)
	}
	g := group{target: "database " + c.Name, checks: db.checks(d)}
	g.close = func() {
		if db.pool != nil {
			db.pool.Close()
		}
	}
	return g
}

func (db *database) checks(d depth) []check {
	checks := []check{
		{id: "connect", needed: true, run: db.connect, limit: 2 * db.check,
			why: "without a connection nothing of this database is captured"},
		{id: "tls", run: db.encrypted,
			why: "on its way through a network every row and the password can be read by others"},
		{id: "version", run: db.version,
			why: "Lockstep needs what PostgreSQL 14 brought (logical messages in pgoutput), and is tested up to 18"},
	}
	if db.Capture == config.CaptureNone {
		return append(checks, db.homeChecks()...)
	}
	checks = append(checks, db.serverChecks()...)
	checks = append(checks, db.roleChecks()...)
	checks = append(checks, db.homeChecks()...)
	checks = append(checks, db.slotChecks()...)
	checks = append(checks, db.activityChecks()...)
	if d == thorough {
		checks = append(checks, db.tableChecks()...)
	}
	return checks
}

// applicationName is what the doctor's connections show in pg_stat_activity.
const applicationName = "lockstep doctor"

func (db *database) connect(ctx context.Context) ([]verdict, error) {
	if db.url == "" {
		return one(skip("the private Postgres does not run now: lockstep serve starts it, with the settings that it needs"))
	}
	pool, err := pgdb.Open(ctx, db.url, applicationName)
	if err != nil {
		return one(fail(connectRemedy(err), "%s", plainError(err)))
	}
	db.pool = pool
	const query = `
SELECT current_setting('server_version_num')::int, current_user::text, current_database()::text,
  coalesce((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), false), pg_catalog.pg_is_in_recovery(), current_setting('server_version')`
	var version string
	w := &db.who
	if err := pool.QueryRow(ctx, query).Scan(&w.version, &w.role, &w.database, &w.super, &w.standby, &version); err != nil {
		return nil, err
	}
	config := pool.Config().ConnConfig
	return one(pass("PostgreSQL %s at %s, database %s, as %s", short(version), addressOf(config), w.database, w.role))
}

// short drops the distributor's part of a version.
func short(version string) string {
	word, _, _ := strings.Cut(version, " ")
	return word
}

func addressOf(c *pgx.ConnConfig) string {
	if strings.HasPrefix(c.Host, "/") {
		return "the socket in " + c.Host
	}
	return net.JoinHostPort(c.Host, fmt.Sprint(c.Port))
}

// plainError is an error's text without the word for its kind.
func plainError(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	for _, kind := range []error{lockstep.ErrInvalid, lockstep.ErrNotFound, lockstep.ErrUnavailable, lockstep.ErrEnvironment, lockstep.ErrConflict} {
		text = strings.TrimSuffix(text, ": "+kind.Error())
	}
	return text
}

// connectRemedy is what to do about a connection that was not had. What the driver
// says of a refusal is in the error's text already.
func connectRemedy(err error) string {
	text := err.Error()
	for _, r := range []struct{ code, remedy string }{
		{"3D000", "# create the database, or correct its name in the URL:\nCREATE DATABASE …;"},
		{"28P01", "# correct the password in the URL, or set it:\nALTER ROLE … PASSWORD '…';"},
		{"28000", "# let the role in: a line in pg_hba.conf for this host, database and role, then\nSELECT pg_reload_conf();\n-- and the role needs LOGIN:\nALTER ROLE … LOGIN;"},
		{"42501", "GRANT CONNECT ON DATABASE … TO …;"},
		{"53300", "# close connections, or raise the limit and restart Postgres:\nALTER SYSTEM SET max_connections = 200;"},
		{"57P03", "# the server starts or stops: try again in a moment"},
	} {
		if strings.Contains(text, "SQLSTATE "+r.code) {
			return r.remedy
		}
	}
	if errors.Is(err, lockstep.ErrInvalid) {
		return "# write the URL as postgres://user:password@host:5432/database"
	}
	return "# is Postgres there, and may this machine reach it? Try:\npsql '<the URL>' -c 'select 1'"
}

func (db *database) encrypted(ctx context.Context) ([]verdict, error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	socket := conn.Conn().PgConn().Conn()
	if secure, ok := socket.(*tls.Conn); ok {
		state := secure.ConnectionState()
		if len(state.VerifiedChains) == 0 {
			return one(warn("# in the URL:\nsslmode=verify-full&sslrootcert=<the server's CA>",
				"encrypted (%s), but nobody checks that it is the right server: the certificate is not verified", tls.VersionName(state.Version)))
		}
		return one(pass("encrypted (%s), and the server's certificate is verified", tls.VersionName(state.Version)))
	}
	if far, where := remote(socket.RemoteAddr()); far {
		return one(warn("# in the URL, and ssl = on in postgresql.conf:\nsslmode=verify-full", "the connection to %s is not encrypted", where))
	}
	return one(pass("the connection stays on this machine"))
}

// remote reports whether the address is another machine's, or may be.
func remote(a net.Addr) (far bool, where string) {
	t, ok := a.(*net.TCPAddr)
	return ok && !t.IP.IsLoopback(), a.String()
}

func (db *database) version(context.Context) ([]verdict, error) {
	switch major := db.who.version / 10000; {
	case major < 14:
		return one(fail("# upgrade the server to PostgreSQL 14 or newer", "PostgreSQL %d is too old", major))
	case major > 18:
		return one(warn("# look for a newer Lockstep", "PostgreSQL %d is newer than what this Lockstep was tested with (14 to 18)", major))
	default:
		return one(pass("PostgreSQL %d is supported", major))
	}
}

// homeChecks are those of the database that holds the schema lockstep.
func (db *database) homeChecks() []check {
	if !db.home {
		return nil
	}
	return []check{{id: "schema", run: db.schema,
		why: "consumers and tokens made by the API, the audit log and the views for psql live in the schema lockstep of this database"}}
}

func (db *database) schema(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT n.oid IS NOT NULL,
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false),
  coalesce((SELECT bool_and(pg_catalog.pg_has_role(c.relowner, 'USAGE')) FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'v')), true),
  pg_catalog.has_database_privilege(current_database(), 'CREATE')
FROM (SELECT) AS always
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'lockstep'`
	var exists, usable, owned, mayCreate bool
	if err := db.pool.QueryRow(ctx, query).Scan(&exists, &usable, &owned, &mayCreate); err != nil {
		return nil, err
	}
	role := db.who.quoted()
	switch {
	case exists && usable && owned:
		return one(pass("the schema lockstep is there"))
	case exists:
		return one(fail("ALTER SCHEMA lockstep OWNER TO "+role+";\n-- and the same for each table and view in it that belongs to another role",
			"the schema lockstep is there, but %s may not keep it: it belongs to another role", db.who.role))
	case !mayCreate:
		return one(fail("CREATE SCHEMA lockstep AUTHORIZATION "+role+";",
			"there is no schema lockstep, and %s may not create one in database %s", db.who.role, db.who.database))
	}
	return one(pass("the schema lockstep will be made at the first start"))
}

// refusal returns Postgres' answer, if that is what the error is.
func refusal(err error) (*pgconn.PgError, bool) { return errors.AsType[*pgconn.PgError](err) }
