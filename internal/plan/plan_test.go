package plan_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lockstep/client"
	"lockstep/internal/plan"
)

// base is a node that one file was applied to.
const base = `
syncs:
  - {name: acme, provider: stripe, credential: {kind: stripe_key, properties: {secret: "${STRIPE_KEY}"}}, collections: ["stripe:customer"], schema: stripe, every: 5s}
consumers:
  - {name: orders, tables: [public.orders], filter: record.a > 1}
  - name: hooks
    kind: webhook
    collections: ["stripe:customer"]
    sync: acme
    webhook: {url: "https://a.test/${PATH_OF_HOOK}", secret: "${HOOK_SECRET}", timeout: 15s}
`

func applied(t *testing.T) *model {
	t.Helper()
	m := newModel()
	m.apply(t, m.plan(t, base, options()))
	return m
}

func find(t *testing.T, p plan.Plan, name string) plan.Item {
	t.Helper()
	i := slices.IndexFunc(p.Items, func(i plan.Item) bool { return i.Name == name })
	if i < 0 {
		t.Fatalf("there is no %s in %s", name, dump(p))
	}
	return p.Items[i]
}

// edited is the base with texts replaced, in pairs.
func edited(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(base) }

func TestWhatIsNewIsShownWithoutItsDefaultsAndSecrets(t *testing.T) {
	t.Parallel()
	p := newModel().plan(t, base, options())
	got := ""
	for _, i := range p.Items {
		got += fmt.Sprintln(i.Action, i.What, i.Name, i.Fields)
	}
	want := `create sync acme [{provider  "stripe"} {database  "app"} {schema  "stripe"} {collections  ["stripe:customer"]} {every  "5s"} {credential.kind  "stripe_key"} {credential.properties.secret  "(secret)"}]
create consumer hooks [{kind  "webhook"} {database  "app"} {collections  ["stripe:customer"]} {sync  "acme"} {webhook.secret  "(secret)"} {webhook.timeout  "15s"} {webhook.url  "https://a.test/…"}]
create consumer orders [{database  "app"} {tables  ["public.orders"]} {filter  "record.a > 1"}]
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAChangeIsToldFieldByField(t *testing.T) {
	t.Parallel()
	m := applied(t)
	for name, c := range map[string]struct {
		edit []string
		item string
		want string
	}{
		"a filter":              {[]string{"record.a > 1", "record.a > 2"}, "orders", `[{filter "record.a > 1" "record.a > 2"}]`},
		"a filter removed":      {[]string{", filter: record.a > 1", ""}, "orders", `[{filter "record.a > 1" }]`},
		"tables to collections": {[]string{"tables: [public.orders]", `collections: ["*"]`}, "orders", `[{tables ["public.orders"] } {collections  ["*"]}]`},
		"a secret removed":      {[]string{`, secret: "${HOOK_SECRET}"`, ""}, "hooks", `[{webhook.secret "(secret)" }]`},
		"another host":          {[]string{"a.test", "b.test"}, "hooks", `[{webhook.url "https://a.test/…" "https://b.test/…"}]`},
		"a setting":             {[]string{"15s", "16s", "}}, coll", "}}, coll"}, "hooks", `[{webhook.timeout "15s" "16s"}]`},
		"a pause":               {[]string{"every: 5s", "every: 6s"}, "acme", `[{every "5s" "6s"}]`},
		"all collections":       {[]string{`collections: ["stripe:customer"], schema`, "schema"}, "acme", `[{collections ["stripe:customer"] }]`},
		"a further property":    {[]string{`"${STRIPE_KEY}"`, `"${STRIPE_KEY}", webhook_secret: "${W}"`}, "acme", `[{credential.properties.webhook_secret  "(secret)"}]`},
		"an address":            {[]string{"schema: stripe", "schema: stripe, base_url: http://a"}, "acme", `[{base_url  "http://a"}]`},
	} {
		p := m.plan(t, edited(c.edit...), options())
		i := find(t, p, c.item)
		if got := fmt.Sprint(i.Fields); got != c.want || i.Action != plan.Change || p.Changes() != 1 {
			t.Errorf("%s: %s %s, %d changes, want %s", name, i.Action, got, p.Changes(), c.want)
		}
	}
}

func TestSecretsAreSentAgainOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	m := applied(t)
	if p := m.plan(t, base, options()); p.Changes() != 0 {
		t.Fatalf("an applied file is not an empty plan: %s", dump(p))
	}
	o := options()
	o.Secrets = true
	p := m.plan(t, base, o)
	ops := p.Operations()
	if len(ops) != 2 || find(t, p, "orders").Action != plan.Same {
		t.Fatalf("%s", dump(p))
	}
	bodies := ""
	for _, op := range ops {
		raw, _ := json.Marshal(op.Body)
		bodies += string(raw) + "\n"
	}
	want := `{"credential":{"kind":"stripe_key","properties":{"secret":"value-of-STRIPE_KEY"}}}` + "\n" +
		`{"webhook":{"secret":"value-of-HOOK_SECRET","url":"https://a.test/value-of-PATH_OF_HOOK"}}` + "\n"
	if bodies != want || strings.Contains(dump(p), "value-of") {
		t.Errorf("sent\n%swant\n%s%s", bodies, want, dump(p))
	}
}

func TestVariablesThatAreNotSetHinderOnlyWhatNeedsThem(t *testing.T) {
	t.Parallel()
	m := applied(t)
	p := plan.Make(parse(t, edited("every: 5s", "every: 6s"), m.Server, unset), m.Server, options())
	if p.Changes() != 1 || len(p.Needs()) != 0 {
		t.Errorf("the secrets of what is there are needed: %s", dump(p))
	}
	fresh := newModel()
	p = plan.Make(parse(t, base, fresh.Server, unset), fresh.Server, options())
	if got := fmt.Sprint(p.Needs()); got != "[HOOK_SECRET PATH_OF_HOOK STRIPE_KEY]" {
		t.Errorf("needs %s", got)
	}
}

func TestOnlyPruningDeletesAndNeverWhatOthersKeep(t *testing.T) {
	t.Parallel()
	m := applied(t)
	extra := func(name, by, from string) {
		c := m.standard()
		c.Name, c.Database, c.ManagedBy, c.AppliedFrom, c.UpdatedAt = name, "app", by, from, m.clock
		m.Consumers = append(m.Consumers, c)
	}
	extra("by-hand", "api", "")
	extra("filed", "file", "")
	extra("theirs", "apply", "other.yml")
	extra("b0a0f3a4-1f0e-4d0b-8d5f-6f1f7c0f2c55", "api", "") // no file can have it
	without := edited("  - {name: orders, tables: [public.orders], filter: record.a > 1}\n", "")
	p := m.plan(t, without, options())
	if p.Changes() != 0 || !strings.Contains(fmt.Sprint(find(t, p, "by-hand").Notes), "--prune deletes it") {
		t.Errorf("without --prune: %s", dump(p))
	}
	o := options()
	o.Prune = true
	p = m.plan(t, without, o)
	var deleted []string
	for _, op := range p.Operations() {
		deleted = append(deleted, string(op.Action)+" "+op.Name)
	}
	if got := fmt.Sprint(deleted); got != "[delete by-hand delete orders]" {
		t.Errorf("pruned %s", got)
	}
	if note := fmt.Sprint(find(t, p, "b0a0f3a4-1f0e-4d0b-8d5f-6f1f7c0f2c55").Notes); !strings.Contains(note, "cannot stand in a file") {
		t.Errorf("notes %s", note)
	}
}

func TestWhatTheServersFileDefinesIsNotTouched(t *testing.T) {
	t.Parallel()
	m := applied(t)
	for i := range m.Consumers {
		m.Consumers[i].ManagedBy, m.Consumers[i].AppliedFrom = "file", ""
	}
	o := options()
	o.Secrets, o.Adopt, o.Override, o.Prune = true, true, true, true
	if p := m.plan(t, base, o); find(t, p, "hooks").Action != plan.Same || find(t, p, "orders").Action != plan.Same || p.Problems() != 0 {
		t.Errorf("equal: %s", dump(p))
	}
	p := m.plan(t, edited("record.a > 1", "record.a > 2"), o)
	i := find(t, p, "orders")
	if !strings.Contains(i.Problem, "change it there and restart") || len(i.Fields) != 1 || slices.ContainsFunc(p.Operations(), func(op plan.Operation) bool { return op.What == plan.Consumer }) {
		t.Errorf("different: %s", dump(p))
	}
}

func TestWhatAnotherFileKeepsIsTakenOverOnlyWhenTold(t *testing.T) {
	t.Parallel()
	m := applied(t)
	o := options()
	o.From = "other.yml"
	changed := edited("record.a > 1", "record.a > 2")
	if p := m.plan(t, base, o); p.Changes() != 0 {
		t.Errorf("equal: %s", dump(p))
	}
	if i := find(t, m.plan(t, changed, o), "orders"); !strings.Contains(i.Problem, "applied from lockstep.yml") {
		t.Errorf("different: %+v", i)
	}
	o.Override = true
	if i := find(t, m.plan(t, changed, o), "orders"); i.Action != plan.Change || i.Problem != "" {
		t.Errorf("overridden: %+v", i)
	}
}

func TestWhatWasMadeByHandIsAdoptedWhenToldOrChanged(t *testing.T) {
	t.Parallel()
	m := applied(t)
	for i := range m.Consumers {
		m.Consumers[i].ManagedBy, m.Consumers[i].AppliedFrom = "api", ""
	}
	if p := m.plan(t, base, options()); p.Changes() != 0 {
		t.Errorf("equal: %s", dump(p))
	}
	o := options()
	o.Adopt = true
	p := m.plan(t, base, o)
	if p.Count(plan.Adopt) != 2 {
		t.Fatalf("%s", dump(p))
	}
	m.apply(t, p)
	if p := m.plan(t, base, o); p.Changes() != 0 || m.Consumers[0].AppliedFrom != "lockstep.yml" {
		t.Errorf("again: %s", dump(p))
	}
}

func TestWhatIsFixedIsMadeAnewOnlyWhenTold(t *testing.T) {
	t.Parallel()
	m := applied(t)
	for name, edit := range map[string][]string{
		"orders": {"{name: orders,", "{name: orders, kind: stdout,"},
		"acme":   {"schema: stripe", "schema: other"},
	} {
		p := m.plan(t, edited(edit...), options())
		if i := find(t, p, name); i.Action != plan.Replace || !strings.Contains(i.Problem, "--replace") || len(p.Operations()) != 0 {
			t.Errorf("%s: %s", name, dump(p))
		}
		o := options()
		o.Replace = true
		ops := m.plan(t, edited(edit...), o).Operations()
		if len(ops) != 2 || ops[0].Action != plan.Delete || ops[1].Action != plan.Create || ops[1].Body["name"] != name {
			t.Errorf("%s: %+v", name, ops)
		}
	}
}

func TestOperationsAreInASafeOrder(t *testing.T) {
	t.Parallel()
	m := applied(t)
	o := options()
	o.Prune = true
	const next = `
syncs: [{name: shop, provider: stripe, schema: shop}]
consumers: [{name: a, collections: ["*"], sync: shop}, {name: orders}]
`
	var got []string
	for _, op := range m.plan(t, next, o).Operations() {
		got = append(got, fmt.Sprint(op.Action, " ", op.Name))
	}
	if want := "create shop, create a, change orders, delete hooks, delete acme"; strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestASchemaGoesFromOneSyncToAnother(t *testing.T) {
	t.Parallel()
	m := applied(t)
	renamed := edited("name: acme", "name: renamed", "sync: acme", "sync: renamed")
	p := m.plan(t, renamed, options())
	if i := find(t, p, "renamed"); !strings.Contains(i.Problem, "belongs to the sync acme") {
		t.Errorf("without --prune: %s", dump(p))
	}
	o := options()
	o.Prune = true
	ops := m.plan(t, renamed, o).Operations()
	if len(ops) != 3 || ops[0].Name != "acme" || ops[0].Action != plan.Delete || ops[1].Name != "renamed" {
		t.Errorf("%+v", ops)
	}
}

func TestWhatMattersOnlyAtTheBeginningIsANote(t *testing.T) {
	t.Parallel()
	m := applied(t)
	p := m.plan(t, edited("{name: orders,", "{name: orders, start: beginning,", "every: 5s", "every: 5s, paused: true"), options())
	if p.Changes() != 0 || !strings.Contains(fmt.Sprint(find(t, p, "orders").Notes), "began at now") || !strings.Contains(fmt.Sprint(find(t, p, "acme").Notes), "not paused") {
		t.Errorf("%s", dump(p))
	}
}

func TestDatabasesAreComparedByNameOnly(t *testing.T) {
	t.Parallel()
	m := applied(t)
	m.Databases = []string{"app", "second"}
	p := m.plan(t, "databases: [{name: app, url: \"${DATABASE_URL}\"}, {name: gone}]\nconsumers: [{name: new, database: gone}]\n", options())
	want := []string{"database gone is not on the server: databases are changed in the server's file", "database second is not in the file: databases are changed in the server's file"}
	if !slices.Equal(p.Notes, want) || !strings.Contains(find(t, p, "new").Problem, "no database gone") {
		t.Errorf("%s", dump(p))
	}
}

func TestAnExportTellsInCommentsWhatAFileHasNoWordsFor(t *testing.T) {
	t.Parallel()
	m := applied(t)
	m.Tokens = []client.Token{{Name: "worker", State: "active"}, {Name: "gone", State: "revoked"}}
	c := m.standard()
	c.Name, c.Database, c.ManagedBy, c.Status, c.Metadata = "b0a0f3a4-1f0e-4d0b-8d5f-6f1f7c0f2c55", "app", "api", "paused", json.RawMessage(`{"team":"a"}`)
	m.Consumers = append(m.Consumers, c)
	m.Consumers[0].Metadata = json.RawMessage("{\"team\":\n\"x\"}")
	got := string(plan.Export(m.Server))
	for _, want := range []string{
		"\n#   ACME_SECRET\n#   HOOKS_SECRET\n#   HOOKS_URL\n", "# Tokens, made by lockstep token create or in the server's own file: worker\n", "# Databases, changed in the server's own file: app\n",
		`        secret: ${ACME_SECRET} # set ACME_SECRET`, `      url: "${HOOKS_URL}" # set HOOKS_URL`, `  # the consumer "b0a0f3a4-1f0e-4d0b-8d5f-6f1f7c0f2c55" cannot stand in a file: name:`,
		`    # metadata, kept by the server: {"team":"x"}`, "    # applied from lockstep.yml\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "value-of") || strings.Contains(got, "gone") {
		t.Errorf("it tells too much:\n%s", got)
	}
}
