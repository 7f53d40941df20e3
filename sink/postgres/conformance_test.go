package postgres

import (
	"encoding/json"
	"net/url"
	"strconv"
	"testing"

	"lockstep/internal/pgdb/cluster"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/locksteptest"
	"lockstep/sink"
)

const ddl = `CREATE TABLE conformance (id text PRIMARY KEY, n bigint, note text CHECK (note <> 'poison'))`

// TestConformance holds each form and each guard to the contract of sinks, over TCP.
func TestConformance(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"fsync": "off"})
	for name, s := range map[string]struct {
		ddl    string
		config Config
		read   string
	}{
		"guard table":  {ddl: ddl, config: Config{Guard: GuardTable, Table: "conformance"}},
		"guard column": {ddl: ddl, config: Config{Guard: GuardColumn, Table: "conformance"}},
		"created":      {config: Config{Create: true, Table: "conformance"}},
		"soft delete": {
			ddl: ddl + `; ALTER TABLE conformance ADD gone timestamptz`, config: Config{SoftDelete: "gone", Table: "conformance"},
			read: `SELECT id, n, json_build_object('id', id, 'n', n, 'note', note) FROM conformance WHERE gone IS NULL`,
		},
		"generic": {
			ddl: `CREATE TABLE conformance (id uuid PRIMARY KEY, collection_id text, upstream_id text, data jsonb CHECK (data ->> 'note' <> 'poison'),
				deleted bool, updated_idx bigint)`,
			config: Config{Form: Generic, Table: "conformance"},
			read:   `SELECT upstream_id, updated_idx, data FROM conformance WHERE NOT deleted`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			locksteptest.TestSink(t, subject(t, c, s.ddl, s.config, s.read))
		})
	}
}

func subject(t *testing.T, c *cluster.Cluster, ddl string, config Config, read string) locksteptest.Target {
	database := "conformance_" + strconv.Itoa(len(t.Name())) + string(config.Guard) + string(config.Form)
	if err := c.CreateDatabase(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	if ddl != "" {
		pgtest.Exec(t, c.URL(database), ddl)
	}
	if read == "" {
		read = `SELECT id, n, json_build_object('id', id, 'n', n, 'note', note) FROM conformance`
	}
	at, err := url.Parse(c.TCPURL(database))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := at.User.Password()
	config.Truncate = true
	config.Settings = map[string]string{"lock_timeout": "300ms"}
	target := locksteptest.Target{
		Address: at.Host,
		New: func(t testing.TB, address string) sink.Sink {
			config, to := config, *at
			to.Host = address
			config.URL = to.String()
			p, err := New(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			return p
		},
		Keeps: locksteptest.Newest, Idempotent: true, Secrets: []string{password},
		Expect: func(m sink.Message) json.RawMessage { return m.Record },
		Arrived: func(t testing.TB) []locksteptest.Arrival {
			var list []locksteptest.Arrival
			if pgtest.Query(t, c.URL(database), `SELECT to_regclass('conformance')`)[0][0] == "NULL" {
				return nil
			}
			for _, r := range pgtest.Query(t, c.URL(database), read) {
				seq, err := strconv.ParseUint(r[1], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, locksteptest.Arrival{Key: r[0], Seq: seq, Body: json.RawMessage(r[2])})
			}
			return list
		},
	}
	if ddl != "" {
		target.Poison = func(m *sink.Message) {
			m.Record = json.RawMessage(`{"id":` + string(m.PKs[1:len(m.PKs)-1]) + `,"n":` + strconv.FormatUint(m.Seq, 10) + `,"note":"poison"}`)
		}
		target.Trouble = troubles(c.URL(database))
	}
	return target
}

// troubles are what a database can have against everything that comes.
func troubles(url string) map[sink.Kind]func(testing.TB) func() {
	return map[sink.Kind]func(testing.TB) func(){
		sink.Refused: func(t testing.TB) func() {
			pgtest.Exec(t, url, `ALTER TABLE conformance RENAME TO elsewhere`)
			return func() { pgtest.Exec(t, url, `ALTER TABLE elsewhere RENAME TO conformance`) }
		},
		sink.Rejected: func(t testing.TB) func() {
			pgtest.Exec(t, url, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no: %', new; END $$`,
				`CREATE TRIGGER refuse BEFORE INSERT ON conformance FOR EACH ROW EXECUTE FUNCTION refuse()`)
			return func() { pgtest.Exec(t, url, `DROP FUNCTION refuse CASCADE`) }
		},
		sink.Retry: func(t testing.TB) func() {
			pgtest.Exec(t, url, `CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no: %', new USING ERRCODE = '40001'; END $$`,
				`CREATE TRIGGER busy BEFORE INSERT ON conformance FOR EACH ROW EXECUTE FUNCTION busy()`)
			return func() { pgtest.Exec(t, url, `DROP FUNCTION busy CASCADE`) }
		},
	}
}
