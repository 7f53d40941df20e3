package doctor_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep/internal/config"
	"lockstep/internal/doctor"
	"lockstep/internal/pgdb/pgtest"
)

func TestAFreshDatabaseIsReadyForAFirstStart(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.Exec(t, address, `CREATE TABLE orders (id int PRIMARY KEY)`)
	r := run(t, configure(t, address))
	for _, f := range r.Findings {
		if f.Status == doctor.Fail {
			t.Errorf("%s fails: %s", f.ID, f.Summary)
		}
		if f.ID == "" || f.Target == "" || f.Summary == "" || f.Why == "" {
			t.Errorf("incomplete: %+v", f)
		}
	}
	if !r.OK || r.Err() != nil || r.Counts.Fail != 0 || r.Counts.Pass+r.Counts.Warn+r.Counts.Skip != len(r.Findings) {
		t.Errorf("report: ok %v, error %v, counts %+v of %d", r.OK, r.Err(), r.Counts, len(r.Findings))
	}
	want(t, r, "connect", doctor.Pass, "PostgreSQL ", "as postgres")
	want(t, r, "version", doctor.Pass)
	want(t, r, "wal_level", doctor.Pass)
	want(t, r, "publication", doctor.Pass, "will be made")
	want(t, r, "slot", doctor.Pass, "will be made")
	want(t, r, "schema", doctor.Pass, "will be made")
	want(t, r, "tables", doctor.Pass, "1 table is captured with every operation")
	// The harness' server has the default.
	want(t, r, "wal_keep", doctor.Warn, "-1", "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';\nSELECT pg_reload_conf();")
	if got := pgtest.Query(t, address, `SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_namespace WHERE nspname = 'lockstep'), (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())`); strings.Join(got[0], " ") != "0 0 0" {
		t.Errorf("the doctor has made something: %v", got)
	}
}

func TestConnectionsThatAreRefused(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		r := run(t, configure(t, "postgres://app:hunter2hunter2@127.0.0.1:1/app"))
		want(t, r, "connect", doctor.Fail, "connection refused", "psql")
		want(t, r, "wal_level", doctor.Skip, "connect did not pass")
		if r.OK || r.Err() == nil {
			t.Error("the report is fine")
		}
	})
	t.Run("no such database", func(t *testing.T) {
		t.Parallel()
		r := run(t, configure(t, strings.Replace(address, "/t", "/nope", 1)))
		want(t, r, "connect", doctor.Fail, "does not exist", "CREATE DATABASE")
	})
	t.Run("a role that may not connect", func(t *testing.T) {
		t.Parallel()
		other := pgtest.Database(t)
		who := role(t, other)
		pgtest.Exec(t, other, `DO $$ BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM public', current_database()); END $$`)
		want(t, run(t, configure(t, as(t, other, who))), "connect", doctor.Fail, "permission denied", "GRANT CONNECT ON DATABASE")
	})
	t.Run("no such role", func(t *testing.T) {
		t.Parallel()
		want(t, run(t, configure(t, as(t, address, "stranger"))), "connect", doctor.Fail, "stranger", "ALTER ROLE … LOGIN")
	})
	t.Run("a URL that is none", func(t *testing.T) {
		t.Parallel()
		want(t, run(t, configure(t, "postgres://app:se%cret@host/")), "connect", doctor.Fail, "not valid", "postgres://user:password@host")
	})
	t.Run("a server that does not answer", func(t *testing.T) {
		t.Parallel()
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		c := configure(t, "postgres://app@"+listener.Addr().String()+"/app")
		began := time.Now()
		r := doctor.Run(t.Context(), doctor.Options{Config: c}.Quick().CheckTime(300*time.Millisecond))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %s", took)
		}
		want(t, r, "data_dir", doctor.Pass)
		for _, f := range r.Findings {
			if f.ID == "connect" && f.Status != doctor.Fail {
				t.Errorf("connect: %+v", f)
			}
		}
	})
}

func TestAPoolerDoesNotSpeakReplication(t *testing.T) {
	t.Parallel()
	pooler := front{refuse: func(startup []byte) string {
		if bytes.Contains(startup, []byte("replication\x00")) {
			return "unsupported startup parameter: replication"
		}
		return ""
	}}
	r := run(t, configure(t, between(t, "127.0.0.1", pgtest.Database(t), pooler)))
	want(t, r, "connect", doctor.Pass)
	want(t, r, "role", doctor.Pass)
	want(t, r, "replication_login", doctor.Fail, "connection pooler", "unsupported startup parameter: replication", "usually port 5432, not 6432 or 6543")
}

func TestConnectionsOverANetwork(t *testing.T) {
	t.Parallel()
	t.Run("in clear", func(t *testing.T) {
		t.Parallel()
		host := ""
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
				host = n.IP.String()
			}
		}
		if host == "" {
			t.Skip("this machine has no address but loopback")
		}
		want(t, run(t, configure(t, between(t, host, pgtest.Database(t), front{}))), "tls", doctor.Warn, "not encrypted", "sslmode=verify-full")
	})
	t.Run("with a certificate that nobody checks", func(t *testing.T) {
		t.Parallel()
		server := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, MinVersion: tls.VersionTLS12}
		secure := front{secure: func(c net.Conn) (io.ReadWriter, bool) {
			if _, err := c.Write([]byte("S")); err != nil {
				return nil, false
			}
			return tls.Server(c, server), true
		}}
		want(t, run(t, configure(t, between(t, "127.0.0.1", pgtest.Database(t), secure))), "tls", doctor.Warn, "the certificate is not verified", "verify-full")
	})
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func TestARoleThatMayNothing(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	who := role(t, address)
	pgtest.Exec(t, address, `CREATE SCHEMA shop`, `CREATE TABLE shop.orders (id int PRIMARY KEY)`, `CREATE TABLE shop.lines (id int PRIMARY KEY)`)
	c := configure(t, as(t, address, who))
	r := run(t, c)
	want(t, r, "connect", doctor.Pass, "as "+who)
	want(t, r, "role", doctor.Fail, who+" has no REPLICATION", `ALTER ROLE "`+who+`" REPLICATION;`, "rds_replication")
	want(t, r, "replication_login", doctor.Fail, "no replication connection", "REPLICATION;")
	want(t, r, "publication", doctor.Fail, who+" may not create it", "GRANT CREATE ON DATABASE")
	want(t, r, "schema", doctor.Fail, "may not create one", "CREATE SCHEMA lockstep AUTHORIZATION")
	want(t, r, "table_privileges", doctor.Fail, "2 tables can not be put into the publication", "shop.lines, shop.orders", `ALTER TABLE "shop"."orders" OWNER TO "`+who+`";`)
	want(t, r, "table_privileges", doctor.Warn, "no backfill", `GRANT USAGE ON SCHEMA "shop"`, `GRANT SELECT ON ALL TABLES IN SCHEMA "shop"`)
	want(t, r, "old_transactions", doctor.Pass, "pg_read_all_stats")

	// What the remedies say is what heals it.
	for _, f := range r.Findings {
		if (f.Status == doctor.Fail || f.Status == doctor.Warn) && (f.ID == "role" || f.ID == "publication" || f.ID == "schema" || f.ID == "table_privileges") {
			pgtest.Exec(t, address, f.Remedy)
		}
	}
	r = run(t, c)
	for _, id := range []string{"role", "replication_login", "publication", "schema", "table_privileges"} {
		want(t, r, id, doctor.Pass)
	}
	if !r.OK {
		t.Errorf("still failing: %+v", r.Counts)
	}
}

func TestTheSchemaOfAnotherRole(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	who := role(t, address)
	pgtest.Exec(t, address, `CREATE SCHEMA lockstep`, `CREATE TABLE lockstep.consumer (id int)`)
	want(t, run(t, configure(t, as(t, address, who))), "schema", doctor.Fail, "belongs to another role", `ALTER SCHEMA lockstep OWNER TO "`+who+`"`)
}

func TestSettingsOfARole(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	who := role(t, address, "SUPERUSER")
	pgtest.Exec(t, address, "ALTER ROLE "+who+" SET statement_timeout = '2s'", "ALTER ROLE "+who+" SET default_transaction_read_only = on",
		"ALTER ROLE "+who+" SET wal_sender_timeout = '2s'")
	r := run(t, configure(t, as(t, address, who)))
	want(t, r, "timeouts", doctor.Warn, "statement_timeout is 2s", "SET statement_timeout = 0;")
	want(t, r, "primary", doctor.Fail, "read-only", "default_transaction_read_only = off")
	want(t, r, "sender_timeout", doctor.Warn, "is 2s", "wal_sender_timeout = '1min'")

	few := role(t, address, "CONNECTION LIMIT 5")
	want(t, run(t, configure(t, as(t, address, few))), "free_connections", doctor.Warn, "may have 5 connections only", "CONNECTION LIMIT 40")
	pgtest.Exec(t, address, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 7', current_database()); END $$`)
	plain := role(t, address)
	want(t, run(t, configure(t, as(t, address, plain))), "free_connections", doctor.Warn, "takes 7 connections only")
}

func TestAServerThatIsNotSetUp(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t, map[string]string{
		"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "0", "max_connections": "16",
		"wal_sender_timeout": "0", "max_slot_wal_keep_size": "16MB", "max_prepared_transactions": "3",
	})
	address := cluster.URL("postgres")
	pgtest.Exec(t, address, `SELECT pg_create_physical_replication_slot('backup')`, `CREATE TABLE t (id int PRIMARY KEY)`,
		`BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'of the ''bank'''`)
	c := configure(t, address)
	o := doctor.Options{Config: c}.Quick().Transactions(time.Microsecond)
	r := doctor.Run(t.Context(), o)
	want(t, r, "wal_level", doctor.Fail, "replica, not logical", "ALTER SYSTEM SET wal_level = logical;", "restart", "rds.logical_replication")
	want(t, r, "free_slots", doctor.Fail, "all 1 replication slots are in use (1 of them by nobody)", "max_replication_slots = 11", "FROM pg_replication_slots")
	want(t, r, "free_senders", doctor.Fail, "all 0 walsenders", "max_wal_senders = 10")
	want(t, r, "replication_login", doctor.Fail, "max_wal_senders")
	want(t, r, "free_connections", doctor.Warn, "connections are free", "pool_max_conns=4")
	want(t, r, "sender_timeout", doctor.Warn, "wal_sender_timeout is 0")
	want(t, r, "wal_keep", doctor.Warn, "16 MB", "'50GB'")
	want(t, r, "prepared_transactions", doctor.Warn, `of the 'bank'`, `ROLLBACK PREPARED 'of the ''bank''';`)
	want(t, r, "tables", doctor.Pass)
	// The wrong password, which only TCP asks for.
	u, err := url.Parse(cluster.TCPURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("postgres", "hunter2/hunter2")
	c.Databases[0].URL = config.URL(u.String())
	r = run(t, c)
	want(t, r, "connect", doctor.Fail, "password authentication failed", "ALTER ROLE … PASSWORD")
	for _, f := range r.Findings {
		if strings.Contains(f.Target+f.Summary+f.Remedy, "hunter2") {
			t.Errorf("the password shows in %+v", f)
		}
	}
}

func TestAStandby(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t, nil)
	// A server that finds this file comes up as a standby, here of nobody.
	if err := os.WriteFile(filepath.Join(cluster.Dir(), "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, run(t, configure(t, cluster.URL("postgres"))), "primary", doctor.Fail, "is a standby", "target_session_attrs=read-write")
}

func TestClocksThatDisagree(t *testing.T) {
	t.Parallel()
	c := configure(t, pgtest.Database(t))
	ahead := doctor.Databases(t.Context(), doctor.Options{Config: c}.Quick().Shifted(-time.Hour))
	want(t, ahead, "clock", doctor.Warn, "1h0m0s ahead of", "set-ntp")
	behind := doctor.Databases(t.Context(), doctor.Options{Config: c}.Quick().Shifted(time.Hour))
	want(t, behind, "clock", doctor.Warn, "1h0m0s behind", "set-ntp")
	want(t, doctor.Databases(t.Context(), doctor.Options{Config: c}.Quick()), "clock", doctor.Pass)
}

func TestNothingIsAskedOfADatabaseThatIsNotCaptured(t *testing.T) {
	t.Parallel()
	c := configure(t, pgtest.Database(t))
	c.Databases[0].Capture = config.CaptureNone
	r := run(t, c)
	want(t, r, "connect", doctor.Pass)
	want(t, r, "schema", doctor.Pass)
	for _, f := range r.Findings {
		if f.ID == "wal_level" || f.ID == "slot" {
			t.Errorf("%s was checked", f.ID)
		}
	}
}
