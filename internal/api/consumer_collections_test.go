package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/deliver"
)

const (
	pullRequests = "github:pull_request"
	pullTable    = "pull_request"
	acme         = "8492d258-fbce-46c3-923c-6e02ef83d72c"
)

// newMirrorNode is a node that knows the providers github, stripe and shop, the last
// by a spec of its own.
func newMirrorNode(t testing.TB) *node {
	t.Helper()
	return newNodeWith(t, func(c *api.Config) { c.Providers = func() []string { return []string{"stripe", "github", "shop"} } })
}

// Each way to say which collections a consumer gets means one thing.
func TestTheWaysToNameCollections(t *testing.T) {
	t.Parallel()
	n := newMirrorNode(t)
	one := []string{pullRequests}
	for i, c := range []struct {
		base, body  string
		collections []string
		sync        string
	}{
		{"/v1/consumers", `"collections":["stripe:customer","github:*"],"sync":"acme"`, []string{"stripe:customer", "github:*"}, "acme"},
		{"/v1/consumers", `"collections":["*"]`, []string{"*"}, ""},
		{"/v1/consumers", `"collections":["shop:order"],"tables":[]`, []string{"shop:order"}, ""},
		{"/v1/consumers", `"collections":[],"sync":""`, []string{}, ""},
		{"/v1/http-consumers", `"collections":["stripe:not_there_yet"]`, []string{"stripe:not_there_yet"}, ""},
		{"/v1/http-consumers", `"filter_collection_id":"github:pull_request"`, one, ""},
		{"/v1/http-consumers", `"filter_collection_id":"github:pull_request","sync":"acme"`, one, "acme"},
		{"/v1/http-consumers", `"filter_collection_id":"","filters":{},"collections":null`, nil, ""},
		{"/v1/http-consumers", `"filter_collection_id":null,"filters":null`, nil, ""},
		{"/v1/http-consumers", `"filters":{"collection_id":"github:pull_request","sync_id":"` + acme + `"}`, one, acme},
		{"/v1/http-consumers", `"filters":{"provider":"github","collection_id":"github:pull_request"}`, one, ""},
		{"/v1/http-consumers", `"filters":{"provider":"github","collection_id":"pull_request"}`, one, ""},
		{"/v1/http-consumers", `"filters":{"resource_id":"github:pull_request","collection_id":"github:pull_request"}`, one, ""},
		{"/v1/http-consumers", `"filters":{"resource_id":"github:pull_request","provider":"","sync_id":""}`, one, ""},
		{"/v1/http-consumers", `"filters":{"provider":"github"}`, []string{"github:*"}, ""},
		{"/v1/http-consumers", `"filters":{"sync_id":"acme"}`, []string{"*"}, "acme"},
		{"/v1/http-consumers", `"collections":["github:*"],"filters":{"sync_id":"acme"}`, []string{"github:*"}, "acme"},
	} {
		name := fmt.Sprintf("c%d", i)
		got := n.do("POST", c.base, fmt.Sprintf(`{"name":%q,%s}`, name, c.body))
		if got.status != 201 {
			t.Errorf("%s: %d %s", c.body, got.status, got.body)
			continue
		}
		if d := n.consumer(name).Definition(); !slices.Equal(d.Collections, c.collections) || d.Sync != c.sync {
			t.Errorf("%s: collections %q of %q, want %q of %q", c.body, d.Collections, d.Sync, c.collections, c.sync)
		}
	}
}

func TestFaultsOfCollections(t *testing.T) {
	t.Parallel()
	n := newMirrorNode(t)
	for name, c := range map[string]struct{ base, body, location, says string }{
		"no provider":           {"/v1/consumers", `"collections":["*","customer"]`, "body.collections[1]", "stripe:customer"},
		"a pattern":             {"/v1/consumers", `"collections":["stripe:cust*"]`, "body.collections[0]", "is no collection"},
		"unknown provider":      {"/v1/consumers", `"collections":["strip:customer"]`, "body.collections[0]", "did you mean stripe?"},
		"foreign provider":      {"/v1/consumers", `"collections":["salesforce:account"]`, "body.collections[0]", "use stripe, github or shop"},
		"tables too":            {"/v1/consumers", `"collections":["stripe:*"],"tables":["public.orders"]`, "body.collections", "either tables or collections"},
		"a sync of nothing":     {"/v1/consumers", `"sync":"acme"`, "body.sync", "give collections too"},
		"older, new route":      {"/v1/consumers", `"filter_collection_id":"github:issue"`, "body.filter_collection_id", "unexpected property"},
		"older, no provider":    {"/v1/http-consumers", `"filter_collection_id":"pull_request"`, "body.filter_collection_id", "is no collection"},
		"older, unknown":        {"/v1/http-consumers", `"filter_collection_id":"gihub:pull_request"`, "body.filter_collection_id", "did you mean github?"},
		"older and tables":      {"/v1/http-consumers", `"filter_collection_id":"github:issue","tables":["a.b"]`, "body.collections", "either tables or collections"},
		"older and newer":       {"/v1/http-consumers", `"filter_collection_id":"github:issue","collections":["github:issue"]`, "body.filter_collection_id", "give one of them"},
		"older and filters":     {"/v1/http-consumers", `"filter_collection_id":"github:issue","filters":{"provider":"github"}`, "body.filter_collection_id", "give one of them"},
		"filters and newer":     {"/v1/http-consumers", `"filters":{"provider":"github"},"collections":["github:issue"]`, "body.filters", "give one of them"},
		"two syncs":             {"/v1/http-consumers", `"filters":{"provider":"github","sync_id":"a"},"sync":"b"`, "body.filters.sync_id", "give one of them"},
		"two collections":       {"/v1/http-consumers", `"filters":{"collection_id":"github:issue","resource_id":"github:label"}`, "body.filters.resource_id", "give one of them"},
		"contradicting":         {"/v1/http-consumers", `"filters":{"collection_id":"github:issue","provider":"stripe"}`, "body.filters.provider", "leave the provider out"},
		"filters, unknown":      {"/v1/http-consumers", `"filters":{"provider":"hubspot"}`, "body.filters.provider", "there is no provider"},
		"filters, bare":         {"/v1/http-consumers", `"filters":{"collection_id":"issue"}`, "body.filters.collection_id", "is no collection"},
		"filters, bare, other":  {"/v1/http-consumers", `"filters":{"resource_id":"issue"}`, "body.filters.resource_id", "is no collection"},
		"filters, unknown keys": {"/v1/http-consumers", `"filters":{"collection":"github:issue"}`, "body.filters.collection", "unexpected property"},
	} {
		t.Run(name, func(t *testing.T) {
			p := wantProblem(t, n.do("POST", c.base, `{"name":"a",`+c.body+`}`), 422)
			if len(p.Errors) != 1 || p.Errors[0].Location != c.location || !strings.Contains(p.Errors[0].Message, c.says) {
				t.Errorf("got %+v, want %q at %s", p.Errors, c.says, c.location)
			}
			if n.consumer("a") != nil {
				t.Error("a consumer was made")
			}
		})
	}
}

func TestViewsTellTheCollections(t *testing.T) {
	t.Parallel()
	n := newMirrorNode(t)
	for body, want := range map[string][]string{
		`"collections":["github:pull_request"],"sync":"acme"`: {
			`"tables":[],"collections":["github:pull_request"],"sync":"acme"`, `"filter_collection_id":"github:pull_request"`,
			`"filters":{"provider":"github","sync_id":"acme","collection_id":"github:pull_request"}`,
		},
		`"collections":["github:*"]`:                       {`"collections":["github:*"],"sync":""`, `"filter_collection_id":null`, `"filters":{"provider":"github"}`},
		`"collections":["github:issue","stripe:customer"]`: {`"collections":["github:issue","stripe:customer"]`, `"filter_collection_id":null`, `"filters":{}`},
		`"collections":["*"],"sync":"acme"`:                {`"collections":["*"],"sync":"acme"`, `"filter_collection_id":null`, `"filters":{"sync_id":"acme"}`},
		`"tables":["public.orders"]`:                       {`"tables":["public.orders"],"collections":[],"sync":""`, `"filter_collection_id":null`, `"filters":{}`},
	} {
		n.do("POST", "/v1/http-consumers", `{"name":"a",`+body+`}`)
		got := n.do("GET", "/v1/http-consumers/a", "")
		for _, member := range want {
			if !strings.Contains(got.body, member) {
				t.Errorf("%s: the view lacks %s: %s", body, member, got.body)
			}
		}
		if list := n.do("GET", "/v1/http-consumers", ""); !strings.Contains(list.body, want[0]) {
			t.Errorf("%s: the list lacks it: %s", body, list.body)
		}
		n.do("DELETE", "/v1/http-consumers/a", "")
	}
}

func TestAChangeTurnsTablesIntoCollections(t *testing.T) {
	t.Parallel()
	n := newMirrorNode(t)
	n.do("POST", "/v1/http-consumers", `{"name":"a","tables":["public.orders"]}`)
	p := wantProblem(t, n.do("PATCH", "/v1/http-consumers/a", `{"filter_collection_id":"github:issue"}`), 422)
	if !strings.Contains(p.Detail, "as an empty list") {
		t.Errorf("it does not tell how: %s", p.Detail)
	}
	for _, body := range []string{`{"filter_collection_id":"github:issue","tables":[]}`, `{"ack_wait":"1m"}`, `{"collections":["github:issue"]}`} {
		if got := n.do("PATCH", "/v1/http-consumers/a", body); got.status != 200 || !strings.Contains(got.body, `"filter_collection_id":"github:issue"`) {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	if got := n.do("PATCH", "/v1/consumers/a", `{"collections":[],"tables":["public.orders"]}`); got.status != 200 || !strings.Contains(got.body, `"tables":["public.orders"],"collections":[]`) {
		t.Errorf("back: %d %s", got.status, got.body)
	}
}

// pull puts a change of the mirrored pull request into the log.
func (r *real) pull(action lockstep.Action, title string) {
	r.t.Helper()
	var w lockstep.BatchWriter
	w.Reset(nil)
	table := &lockstep.Table{OID: 2, Schema: "github", Name: pullTable, Key: lockstep.KeyPrimary}
	r.lsn += 100
	w.Begin(lockstep.Tx{CommitLSN: r.lsn, CommitTime: time.Now().UnixMicro(), XID: 7, Origin: lockstep.OriginSync})
	row := fmt.Sprintf(`{"id":1785067841,"title":%[1]q,"_id":"1b959a7a-09c2-4a32-9c48-31565ba42e15","_created_at":"2024-03-21T17:47:28.000000Z",`+
		`"_updated_at":"2024-03-21T17:49:32.000000Z","_synced_at":"2024-03-21T17:49:33.250000Z","_rank":3,"_fingerprint":"AAE=","_raw":{"databaseId": 1785067841, "title": %[1]q},"_notes":null}`, title)
	const pks = `["1785067841"]`
	w.Close(append(append(w.Open(), row...), pks...), lockstep.RecordHead{
		Action: action, Table: w.Table(table), RecordLen: len(row), PKsLen: len(pks), KeyHash: lockstep.KeyHashPart(lockstep.KeyHash(table), []byte("1785067841")),
	})
	done := make(chan error, 1)
	if err := r.log.Append(r.t.Context(), &w, lockstep.Mark{SystemID: 1, Timeline: 1, CommitLSN: r.lsn, Ordinal: 1, EndLSN: r.lsn + 8, Complete: true}, func(err error) { done <- err }); err != nil {
		r.t.Fatal(err)
	}
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// The calls of the guide of 2024, with its shapes: make a consumer, take, refuse, take
// again, settle.
func TestTheOlderContractOfPullConsumers(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	made := r.want(201, "POST", "/v1/http-consumers", `{"name":"GitHub Pull Request Consumer","filter_collection_id":"github:pull_request","ack_wait_ms":30000,"max_deliver":-1,`+
		`"max_ack_pending":1000,"deliver_policy":"all","metadata":{"team":"a"}}`)
	id := mustJSON[struct{ ID string }](t, made.body).ID
	base := "/v1/http-consumers/" + id
	if got := r.want(200, "GET", base+"/next", ""); got.body != `{"data":[],"info":{"num_pending":0,"num_ack_pending":0}}`+"\n" {
		t.Errorf("nothing there: %s", got.body)
	}
	r.commit(1) // a table that is no mirror
	r.pull(lockstep.Insert, "✨ Neovim config")
	type answer struct {
		Data []struct {
			Token  string          `json:"ack_token"`
			Record json.RawMessage `json:"record"`
			Action string
		}
		Info struct {
			Pending    int `json:"num_pending"`
			AckPending int `json:"num_ack_pending"`
		}
	}
	take := func(method, target, body string) answer {
		return mustJSON[answer](t, r.want(200, method, base+target, body).body)
	}
	const record = `{"id":"1b959a7a-09c2-4a32-9c48-31565ba42e15","sync_id":"` + acme + `","collection_id":"github:pull_request","provider":"github","upstream_id":"1785067841",` +
		`"data":{"databaseId": 1785067841, "title": "✨ Neovim config"},"deleted":false,"inserted_at":"2024-03-21T17:49:33.250000Z","upstream_created_at":"2024-03-21T17:47:28.000000Z",` +
		`"upstream_updated_at":"2024-03-21T17:49:32.000000Z","updated_idx":2}`
	first := take("GET", "/next", "")
	if len(first.Data) != 1 || string(first.Data[0].Record) != record || first.Info.AckPending != 1 || first.Info.Pending != 0 {
		t.Fatalf("taken %+v\nwant %s", first, record)
	}
	r.want(204, "POST", base+"/nack", `{"ack_tokens":[`+strconv.Quote(first.Data[0].Token)+`],"delay":0}`)
	again := take("POST", "/next", `{"batch_size":20,"wait_for":10000}`)
	if len(again.Data) != 1 || string(again.Data[0].Record) != record {
		t.Fatalf("taken again %+v", again)
	}
	r.pull(lockstep.Delete, "gone")
	r.want(204, "POST", base+"/ack", `{"ack_tokens":[`+strconv.Quote(again.Data[0].Token)+`]}`)
	gone := take("GET", "/next?wait_for=10000", "")
	if len(gone.Data) != 1 || gone.Data[0].Action != "delete" || !strings.Contains(string(gone.Data[0].Record), `"data":{"databaseId": 1785067841, "title": "gone"},"deleted":true,`) {
		t.Errorf("the delete: %+v", gone)
	}
}

// A definition is the same after a restart.
func TestCollectionsAreStored(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.want(201, "POST", "/v1/consumers", `{"name":"a","collections":["github:*","stripe:customer"],"sync":"acme"}`)
	r.want(201, "POST", "/v1/consumers", `{"name":"b","tables":["public.orders"]}`)
	stored, err := api.Postgres{Pool: r.pool}.Load(t.Context())
	if err != nil || len(stored) != 2 {
		t.Fatalf("%d stored, %v", len(stored), err)
	}
	if diff := cmp.Diff([]string{"github:*", "stripe:customer"}, stored[0].Collections); diff != "" || stored[0].Sync != "acme" || len(stored[0].Tables) != 0 || stored[0].Validate() != nil {
		t.Errorf("stored %+v", stored[0])
	}
	if stored[1].Collections != nil || stored[1].Sync != "" || !slices.Equal(stored[1].Tables, []string{"public.orders"}) {
		t.Errorf("stored %+v", stored[1])
	}
}

// mirroredPulls is what real nodes mirror.
func mirroredPulls(_, schema, table string) (deliver.Mirrored, bool) {
	return deliver.Mirrored{SyncID: acme, Sync: "acme", Provider: "github", Collection: pullRequests}, schema == "github" && table == pullTable
}
