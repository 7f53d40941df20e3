package deliver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"lockstep"
	"lockstep/internal/deliver"
)

const (
	acme   = "8492d258-fbce-46c3-923c-6e02ef83d72c"
	globex = "0f1d9a52-6a0e-4a52-9d2b-0a0b3a0f2a11"
)

// mirrors answers what tables mirror, as the syncs of a node do.
type mirrors struct {
	mu     sync.Mutex
	tables map[string]deliver.Mirrored
}

// mirroring is a rig with the tables of two Stripe accounts and a GitHub
// organisation. orders is a table of the user's.
func mirroring(t testing.TB) (*rig, *mirrors) {
	t.Helper()
	m := &mirrors{tables: map[string]deliver.Mirrored{
		"customer":        {SyncID: acme, Sync: "acme", Provider: "stripe", Collection: "stripe:customer"},
		"invoice":         {SyncID: acme, Sync: "acme", Provider: "stripe", Collection: "stripe:invoice"},
		"globex_customer": {SyncID: globex, Sync: "globex", Provider: "stripe", Collection: "stripe:customer"},
		"pull_request":    {SyncID: acme, Sync: "acme", Provider: "github", Collection: "github:pull_request"},
	}}
	r := &rig{t: t, log: newMemLog(), states: newMemStates(), dead: newMemDead(), mirrored: m.of}
	r.start()
	return r, m
}

func (m *mirrors) of(database, schema, table string) (deliver.Mirrored, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one, ok := m.tables[table]
	return one, ok && database == "app" && schema == "public"
}

func (m *mirrors) set(table string, to *deliver.Mirrored) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tables, table)
	if to != nil {
		m.tables[table] = *to
	}
}

// collections is the definition of a consumer of collections.
func collections(names ...string) deliver.Definition {
	return definition(func(d *deliver.Definition) { d.Collections = names })
}

// pullRequest is a row of a mirror table as capture writes it, with a column of the
// user's behind the system's.
func pullRequest(action lockstep.Action, raw string) row {
	return row{
		table: "pull_request", action: action, key: "1785067841", old: `{"state":"OPEN","_fingerprint":"AAE="}`,
		whole: `{"id":1785067841,"state":"MERGED","title":"✨ config \"_raw\":","labels":[{"_id":"not this"}],` +
			`"_id":"1b959a7a-09c2-4a32-9c48-31565ba42e15","_created_at":"2024-03-21T17:47:28.000000Z","_updated_at":"2024-03-21T17:49:32.000000Z",` +
			`"_synced_at":"2024-03-21T17:49:33.250000Z","_rank":3,"_fingerprint":"AAECAwQFBgcICQoLDA0ODw==","_raw":` + raw + `,"_notes":null,"owner_note":"mine"}`,
	}
}

const raw = `{"id": "PR_kwDOLjrV6c5qZflB", "title": "✨ config \"_raw\":", "price": 1.10, "big": 12345678901234567890, "state": "open", "labels": [{"id": 1}, {"_raw": "}"}]}`

// message is what the worker gets, without its token.
func message(c *deliver.Consumer, d deliver.Delivery) string {
	return string(c.AppendMessage(nil, d))
}

// record cuts the record out of a message.
func record(t testing.TB, message []byte) string {
	t.Helper()
	var m struct{ Record json.RawMessage }
	if err := json.Unmarshal(message, &m); err != nil {
		t.Fatalf("%v: %s", err, message)
	}
	return string(m.Record)
}

const goldenRecord = `{"id":"1b959a7a-09c2-4a32-9c48-31565ba42e15","sync_id":"8492d258-fbce-46c3-923c-6e02ef83d72c","collection_id":"github:pull_request","provider":"github",` +
	`"upstream_id":"1785067841","data":` + raw + `,"deleted":%t,"inserted_at":"2024-03-21T17:49:33.250000Z","upstream_created_at":"2024-03-21T17:47:28.000000Z",` +
	`"upstream_updated_at":"2024-03-21T17:49:32.000000Z","updated_idx":%d}`

// The shape of the older contract, whatever happened to the row. What happened is
// action; the old values of columns are not told in this form.
func TestAConsumerOfACollectionGetsTheAPIsObject(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	actions := []lockstep.Action{lockstep.Insert, lockstep.Update, lockstep.Read, lockstep.Delete}
	for _, a := range actions {
		r.log.append(t, pullRequest(a, raw))
	}
	c := r.put(collections("github:pull_request"))
	for i, a := range actions {
		d := next(t, c, 1)[0]
		got := message(c, d)
		want := fmt.Sprintf(`{"record":`+goldenRecord+`,"changes":null,"action":"%s","metadata":{"database":"app","table_schema":"public","table_name":"pull_request","seq":%d,`,
			a == lockstep.Delete, i+1, a, i+1)
		if !strings.HasPrefix(got, want) {
			t.Errorf("got  %s\nwant %s…", got, want)
		}
		for _, member := range []string{`"record_pks":["1785067841"]`, `"old_known":true`, `"consumer":{"id":"` + c.ID() + `","name":"orders"}`} {
			if !strings.Contains(got, member) {
				t.Errorf("metadata of %s lacks %s: %s", a, member, got)
			}
		}
		whole := string(c.AppendDelivery(nil, d))
		if whole != `{"ack_token":"`+d.Token+`","attempt":1,`+got[1:] || !json.Valid([]byte(whole)) {
			t.Errorf("delivery %s", whole)
		}
		ack(t, c, d)
	}
}

func TestAConsumerOfTablesGetsTheRowOfTheSameTable(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	change := pullRequest(lockstep.Update, raw)
	r.log.append(t, change)
	c := r.put(definition(func(d *deliver.Definition) { d.Tables = []string{"public.pull_request"} }))
	got := message(c, next(t, c, 1)[0])
	if want := `{"record":` + change.whole + `,"changes":` + change.old + `,"action":"update",`; !strings.HasPrefix(got, want) {
		t.Errorf("got  %s\nwant %s…", got, want)
	}
}

func TestWhatConcernsAWholeTableHasNoRecord(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	gap := row{table: "everything", action: lockstep.Gap, none: true, meta: `,"gap":{"state":"start"}`}
	r.log.append(t, pullRequest(lockstep.Insert, raw), truncate("pull_request"), truncate("orders"), gap)
	c := r.put(collections("github:*"))
	ack(t, c, next(t, c, 1)...)
	for _, action := range []string{"truncate", "gap"} {
		d := await(t, c, 1)[0]
		if got := message(c, d); !strings.HasPrefix(got, `{"record":null,"changes":null,"action":"`+action+`","metadata":{`) {
			t.Errorf("got %s", got)
		}
		ack(t, c, d)
	}
	want(t, "a truncate of another table", next(t, c, 1), "")
}

// A user may give the mirror table another replica identity; then Postgres does not
// send what did not change, or not more than the key of a deleted row.
func TestWhatPostgresDidNotSendIsNull(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	full := pullRequest(lockstep.Update, raw)
	full.whole = strings.Replace(full.whole, `"_raw":`+raw+`,`, "", 1)
	full.meta, full.old = `,"unchanged":["_raw"]`, ""
	r.log.append(t,
		full,
		row{table: "pull_request", action: lockstep.Delete, key: "7", whole: `{"id":7}`},
		row{table: "pull_request", key: "8", whole: `{"id":8,"_created_at":null,"_updated_at":null,"_raw":null,"_notes":null,"_synced_at":null,"_id":null}`, meta: `,"json_null":["_raw"]`},
		row{table: "pull_request", key: "9", none: true, meta: `,"oversized":90000000`})
	c := r.put(collections("github:pull_request"))
	ds := next(t, c, 4)
	if got := message(c, ds[0]); !strings.Contains(got, `"upstream_id":"1785067841","data":null,"deleted":false,"inserted_at":"2024`) || !strings.Contains(got, `"unchanged":["_raw"]`) {
		t.Errorf("unchanged _raw: %s", got)
	}
	for i, want := range []string{
		`{"id":null,"sync_id":"` + acme + `","collection_id":"github:pull_request","provider":"github","upstream_id":"7","data":null,"deleted":true,"inserted_at":null,"upstream_created_at":null,"upstream_updated_at":null,"updated_idx":2}`,
		`{"id":null,"sync_id":"` + acme + `","collection_id":"github:pull_request","provider":"github","upstream_id":"8","data":null,"deleted":false,"inserted_at":null,"upstream_created_at":null,"upstream_updated_at":null,"updated_idx":3}`,
		`null`,
	} {
		if got := record(t, c.AppendDelivery(nil, ds[i+1])); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestDataIsCopiedByteForByte(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	values := []string{
		`{"name": "Żółć 你好 🙂 \" \\ \n \t {[", "n": 1e400, "x": -0.0}`,
		`[]`, `{}`, `"text"`, `7`, `null`, `{"a": {"a": {"a": [[[[{}]]]]}}}`,
		`{"blob": "` + strings.Repeat(`\\\" }],{ ü `, 300_000) + `"}`,
	}
	for i, v := range values {
		one := pullRequest(lockstep.Insert, v)
		one.key = fmt.Sprint(i)
		r.log.append(t, one)
	}
	c := r.put(collections("github:pull_request"))
	for i, d := range next(t, c, len(values)) {
		var got struct{ Data json.RawMessage }
		if err := json.Unmarshal([]byte(record(t, c.AppendDelivery(nil, d))), &got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Data, []byte(values[i])) {
			t.Errorf("value %d: got %.200s, want %.200s", i, got.Data, values[i])
		}
	}
}

func TestWhichCollectionsAreSelected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		collections []string
		sync, want  string
	}{
		{[]string{"stripe:customer"}, "", "a@1 c@3"},
		{[]string{"stripe:customer"}, "globex", "c@3"},
		{[]string{"stripe:customer"}, acme, "a@1"},
		{[]string{"stripe:customer"}, "nobody", ""},
		{[]string{"stripe:*"}, "", "a@1 b@2 c@3"},
		{[]string{"stripe:*"}, "acme", "a@1 b@2"},
		{[]string{"github:pull_request", "stripe:invoice"}, "", "b@2 d@4"},
		{[]string{"*"}, "", "a@1 b@2 c@3 d@4"},
		{[]string{"*"}, "acme", "a@1 b@2 d@4"},
		{[]string{"stripe:custom", "stripe:customers", "Stripe:customer", "strip:*", "github:customer"}, "", ""},
	} {
		t.Run(strings.Join(c.collections, " ")+" of "+c.sync, func(t *testing.T) {
			t.Parallel()
			r, _ := mirroring(t)
			r.log.append(t, row{table: "customer", key: "a"}, row{table: "invoice", key: "b"}, row{table: "globex_customer", key: "c"}, row{table: "pull_request", key: "d"}, row{key: "e"})
			d := collections(c.collections...)
			d.Sync = c.sync
			consumer := r.put(d)
			want(t, "selected", next(t, consumer, 10), c.want)
			for table, key := range map[string]string{"customer": "a", "invoice": "b", "globex_customer": "c", "pull_request": "d", "orders": "e", "unknown": "f"} {
				if got := consumer.Selects("public", table); got != strings.Contains(c.want, key+"@") {
					t.Errorf("Selects(%s) is %v", table, got)
				}
			}
		})
	}
}

// Two accounts' records may have the same id: they are two keys, told apart by sync_id.
func TestTwoSyncsOfOneCollection(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	r.log.append(t, row{table: "customer", key: "cus_1"}, row{table: "globex_customer", key: "cus_1"}, row{table: "customer", key: "cus_1"})
	c := r.put(collections("stripe:customer"))
	got := ""
	for _, d := range next(t, c, 2) {
		var v struct {
			SyncID string `json:"sync_id"`
		}
		if err := json.Unmarshal([]byte(record(t, c.AppendDelivery(nil, d))), &v); err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprintf("%d:%s ", d.Record.Seq(), v.SyncID)
	}
	if want := fmt.Sprintf("1:%s 2:%s ", acme, globex); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFilterAndTransformSeeTheAPIsObject(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	closed := pullRequest(lockstep.Update, strings.Replace(raw, `"open"`, `"closed"`, 1))
	r.log.append(t, pullRequest(lockstep.Update, raw), closed, pullRequest(lockstep.Delete, raw))
	d := collections("github:pull_request")
	d.Filter = `record.data.state == "open" and record.collection_id == "github:pull_request" and record.upstream_id == "1785067841" and changes == nil and record.title == nil`
	d.Transform = `{"pr": record.data.id, "price": record.data.price, "gone": record.deleted, "old": changes, "what": action, "table": metadata.table_name}`
	c := r.put(d)
	ds := next(t, c, 5)
	want(t, "those that are open", ds, "1785067841@1 1785067841@3")
	for i, want := range []string{
		`{"pr":"PR_kwDOLjrV6c5qZflB","price":1.10,"gone":false,"old":null,"what":"update","table":"pull_request"}`,
		`{"pr":"PR_kwDOLjrV6c5qZflB","price":1.10,"gone":true,"old":null,"what":"delete","table":"pull_request"}`,
	} {
		if got := record(t, c.AppendDelivery(nil, ds[i])); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// Consumers of one table share what their filters decoded, each form its own.
func TestFormsDoNotMixAtTheTail(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	rows := r.put(definition(func(d *deliver.Definition) {
		d.Tables, d.Filter = []string{"public.*"}, `record.state == "MERGED" and changes.state == "OPEN"`
	}))
	var views []*deliver.Consumer
	for i := range 2 {
		d := collections("github:*")
		d.Name, d.Filter = fmt.Sprintf("view%d", i), `record.data.state == "open" and changes == nil`
		views = append(views, r.put(d))
	}
	all := append([]*deliver.Consumer{rows}, views...)
	for _, c := range all {
		want(t, "nothing is there", next(t, c, 1), "")
	}
	r.log.append(t, pullRequest(lockstep.Update, raw))
	for _, c := range all {
		want(t, c.Definition().Name, await(t, c, 1), "1785067841@1")
	}
}

func TestRedeliveriesAndDeadLettersShowTheSame(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	r.log.append(t, pullRequest(lockstep.Delete, raw))
	d := exhausting(deliver.Park, 3)
	d.Collections = []string{"github:pull_request"}
	c := r.put(d)
	want := fmt.Sprintf(goldenRecord, true, 1)
	for range 2 {
		one := await(t, c, 1)[0]
		if got := record(t, c.AppendDelivery(nil, one)); got != want {
			t.Errorf("attempt %d: got %s", one.Attempt, got)
		}
		nack(t, c, deliver.NackOptions{}, one)
	}
	fail(t, c, await(t, c, 1)[0])
	l, err := c.DeadLetter(t.Context(), 1)
	if err != nil || record(t, l.Message) != want || !strings.Contains(string(l.Message), `"changes":null,"action":"delete"`) {
		t.Errorf("letter: %v %s", err, l.Message)
	}
	if err := c.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	c = r.restart(d)
	one := await(t, c, 1)[0]
	if got := record(t, c.AppendDelivery(nil, one)); got != want {
		t.Errorf("after a retry and a restart: got %s", got)
	}
	peeked, err := c.Peek(t.Context(), 1)
	if err != nil || len(peeked) != 0 {
		t.Errorf("peek: %d, %v", len(peeked), err)
	}
}

// A sync that is made while consumers run is theirs from its first change on, also
// when its table was a user's before, or another sync's.
func TestASyncComesAndGoes(t *testing.T) {
	t.Parallel()
	r, m := mirroring(t)
	d := collections("stripe:*")
	d.Sync = "initech"
	c := r.put(d)
	want(t, "nothing", next(t, c, 1), "")
	r.log.append(t, row{table: "orders", key: "a"}, row{table: "customer", key: "b"})
	want(t, "not ours", next(t, c, 1), "")

	ours := deliver.Mirrored{SyncID: "d3f0a3a0-0000-4000-8000-000000000001", Sync: "initech", Provider: "stripe", Collection: "stripe:charge"}
	m.set("orders", &ours)
	m.set("customer", &ours)
	r.log.append(t, row{table: "orders", key: "c"}, row{table: "customer", key: "d"})
	want(t, "ours", await(t, c, 10), "c@3 d@4")

	r.log.append(t, row{table: "orders", key: "e"}, row{table: "customer", key: "f"})
	eventually(t, "both are offered", func() bool { return c.Stats().Pending == 2 })
	m.set("orders", nil)
	want(t, "a sync that is gone shows nothing", await(t, c, 10), "f@6")
	r.log.append(t, row{table: "orders", key: "g"}, row{table: "customer", key: "h"})
	want(t, "and gets nothing", await(t, c, 10), "h@8")
}

func TestFaultsOfCollectionsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d     deliver.Definition
		field string
	}{
		{deliver.Definition{Collections: []string{"stripe:customer", "customer"}}, "collections[1]"},
		{deliver.Definition{Collections: []string{"stripe:"}}, "collections[0]"},
		{deliver.Definition{Collections: []string{":customer"}}, "collections[0]"},
		{deliver.Definition{Collections: []string{"*:customer"}}, "collections[0]"},
		{deliver.Definition{Collections: []string{"stripe:cust*"}}, "collections[0]"},
		{deliver.Definition{Collections: []string{"stripe:customer "}}, "collections[0]"},
		{deliver.Definition{Collections: []string{"stripe:a:b"}}, "collections[0]"},
		{deliver.Definition{Collections: []string{""}}, "collections[0]"},
		{deliver.Definition{Collections: []string{"stripe:*"}, Tables: []string{"public.*"}}, "collections"},
		{deliver.Definition{Sync: "acme"}, "sync"},
	} {
		d := definition(func(d *deliver.Definition) { d.Collections, d.Tables, d.Sync = c.d.Collections, c.d.Tables, c.d.Sync })
		var def *deliver.DefinitionError
		if err := d.Validate(); !errors.As(err, &def) || len(def.Problems) != 1 || def.Problems[0].Field != c.field {
			t.Errorf("%v %v %v: got %v, want a fault at %s", c.d.Collections, c.d.Tables, c.d.Sync, err, c.field)
		}
	}
}

// What was tried stays; what nobody tried is looked at anew, in the new form.
func TestAConsumerTurnsFromTablesToCollections(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	r.log.append(t, row{key: "a"}, pullRequest(lockstep.Insert, raw), row{table: "customer", key: "c"})
	d := definition(nil)
	c := r.put(d)
	want(t, "of every table", next(t, c, 1), "a@1")
	d.Collections = []string{"github:*"}
	c = r.put(d)
	ds := next(t, c, 10)
	want(t, "of the collection", ds, "1785067841@2")
	if got := record(t, c.AppendDelivery(nil, ds[0])); got != fmt.Sprintf(goldenRecord, false, 2) {
		t.Errorf("got %s", got)
	}
}

func TestRowsThatABackfillReadsComeInTheSameForm(t *testing.T) {
	t.Parallel()
	r, _ := mirroring(t)
	d := collections("github:pull_request")
	own, other := pullRequest(lockstep.Read, raw), pullRequest(lockstep.Read, raw)
	own.only, own.meta, other.only = d.ID, `,"backfill":{"id":"x"}`, "somebody"
	r.log.append(t, own, other)
	c := r.put(d)
	ds := next(t, c, 10)
	want(t, "its own", ds, "1785067841@1")
	got := message(c, ds[0])
	if !strings.HasPrefix(got, `{"record":`+fmt.Sprintf(goldenRecord, false, 1)+`,"changes":null,"action":"read"`) || !strings.Contains(got, `"backfill":{"id":"x"}`) {
		t.Errorf("got %s", got)
	}
}

// The row of 8 KB as a message: the view finds the few members that it copies.
func BenchmarkAppendDelivery(b *testing.B) {
	for _, form := range []string{"row", "view"} {
		b.Run(form, func(b *testing.B) {
			r, _ := mirroring(b)
			big := `{"items": [` + strings.Repeat(`{"id": "si_1", "price": 1.10, "text": "some words \" more"}, `, 70) + `{}]}`
			one := pullRequest(lockstep.Update, big)
			one.whole = strings.Replace(one.whole, `"title":`, `"items":`+big[10:len(big)-1]+`,"title":`, 1)
			r.log.append(b, one)
			d := collections("github:*")
			if form == "row" {
				d.Collections = nil
			}
			c := r.put(d)
			delivery := next(b, c, 1)[0]
			var buf []byte
			b.SetBytes(int64(len(one.whole)))
			b.ReportAllocs()
			for b.Loop() {
				buf = c.AppendDelivery(buf[:0], delivery)
			}
			if !json.Valid(buf) {
				b.Fatal("not JSON")
			}
		})
	}
}
