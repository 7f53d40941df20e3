package engine_test

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// send sends a form of the console and returns the answer: a page, or where to go.
func (n *node) send(path string, form url.Values) (status int, to, page string) {
	n.t.Helper()
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := browser.PostForm("http://"+n.server+"/console/"+path, form)
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer.StatusCode, answer.Header.Get("Location"), string(text)
}

func holds(t *testing.T, what, page string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(page, part) {
			t.Errorf("%s lacks %q", what, part)
		}
	}
}

func lacks(t *testing.T, what, page string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(page, part) {
			t.Errorf("%s holds %q", what, part)
		}
	}
}

// What is wrong with a new consumer is told at its field, what was entered stays, and a
// secret stays without being shown: the form can be sent again as it came.
func TestConsoleMakesAConsumerByForm(t *testing.T) {
	t.Parallel()
	url1 := pgtest.Database(t)
	pgtest.Exec(t, url1, `CREATE TABLE orders (id int PRIMARY KEY, note text)`)
	n := newNode(t, url1, "  []\n")
	n.slot("console_form")
	n.start()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	form := url.Values{
		"do": {"create"}, "kind": {"webhook"}, "name": {"<b>\"shop\" & ü"}, "tables": {"public.orders"}, "actions": {"insert", "update"}, "transform": {"{id: record.id}"},
		"filter": {"record.id != 2"}, "ack_wait": {"soon"}, "webhook.url": {"https://shop.example.com/hooks"}, "webhook.secret": {secret}, "webhook.headers": {"X-A: 1"},
	}
	status, _, page := n.send("create/consumer", form)
	if status != http.StatusUnprocessableEntity {
		t.Fatalf("a wrong ack_wait: status %d", status)
	}
	holds(t, "the form with a fault", page, `value="&lt;b&gt;&#34;shop&#34; &amp; ü"`, "record.id != 2", "X-A: 1", "&#34;soon&#34; is not a length of time", `value="update" checked`)
	lacks(t, "the form with a fault", page, "MfKQ9r8GKYqrTwj", "<b>")

	pgtest.Exec(t, url1, `INSERT INTO orders SELECT i, '<script>alert(' || i || ')</script>' FROM generate_series(1, 3) i`)
	_, kept, ok := strings.Cut(page, `name="kept.webhook.secret" value="`)
	kept, _, _ = strings.Cut(kept, `"`)
	if !ok || kept == "" {
		t.Fatal("the form does not keep the secret")
	}
	form.Set("kept.webhook.secret", kept)
	form.Del("webhook.secret")
	form.Set("ack_wait", "20s")
	form.Set("do", "try")
	pgtest.Eventually(t, 30*time.Second, "three changes to try it on", func() bool {
		_, _, page = n.send("create/consumer", form)
		return strings.Contains(page, "Of the last 3 changes")
	})
	holds(t, "the trial", page, "2 pass", "1 filtered out", "0 fail", "&lt;script&gt;alert(3)")
	lacks(t, "the trial", page, "<script>alert")

	form.Set("do", "create")
	status, to, page := n.send("create/consumer", form)
	if status != http.StatusSeeOther || !strings.HasSuffix(to, "/connect") {
		t.Fatalf("a good form: status %d, to %q\n%s", status, to, page)
	}
	made, err := n.api.Consumer(t.Context(), `<b>"shop" & ü`)
	if err != nil {
		t.Fatal(err)
	}
	if made.AckWait != "20s" || strings.Join(made.Actions, " ") != "insert update" || made.Filter != "record.id != 2" || !strings.Contains(string(made.Webhook), "secret") {
		t.Errorf("it was made as %s", made.Raw)
	}
	at := "consumers/" + made.ID
	for _, tab := range []string{"", "/attempts", "/dead", "/backfills", "/settings", "/connect"} {
		lacks(t, "the page "+tab, n.consolePage(at+tab), "<b>", secret)
	}
}

// Settings are changed by what differs, and a change that somebody made meanwhile is not
// overwritten.
func TestConsoleChangesSettings(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	n := newNode(t, address, "  - {name: filed, tables: [public.x]}\n")
	n.slot("console_settings")
	n.start()
	made, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "a", Tables: []string{"public.x"}, Filter: "record.a > 1", MaxAttempts: 3})
	if err != nil {
		t.Fatal(err)
	}
	at := "consumers/" + made.ID + "/settings"
	form := formOf(n.consolePage(at))
	form.Set("filter", "")
	form.Set("tables", "public.x\r\npublic.y")
	if status, to, page := n.send(at, form); status != http.StatusSeeOther {
		t.Fatalf("status %d to %q\n%s", status, to, page)
	}
	now, err := n.api.Consumer(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if now.Filter != "" || fmt.Sprint(now.Tables) != "[public.x public.y]" || now.MaxAttempts != 3 || now.AckWait != made.AckWait {
		t.Errorf("it is now %s", now.Raw)
	}
	form.Set("max_attempts", "9") // the form is older than the change
	if status, _, page := n.send(at, form); status != http.StatusUnprocessableEntity || !strings.Contains(page, "changed") {
		t.Errorf("a form that is older than a change: status %d", status)
	}
	for what, part := range map[string]url.Values{"nothing": {}, "no version": {"filter": {"true"}}, "one field": {"filter": {"true"}, "seen": form["seen"]}} {
		if status, _, page := n.send(at, part); status != http.StatusUnprocessableEntity || !strings.Contains(page, "did not arrive whole") {
			t.Errorf("a form of %s: status %d", what, status)
		}
	}
	if after, err := n.api.Consumer(t.Context(), made.ID); err != nil || after.Tables[0] != "public.x" || !after.UpdatedAt.Equal(now.UpdatedAt) {
		t.Errorf("after forms that did not arrive whole it is %s, error %v", after.Raw, err)
	}
	holds(t, "the settings of a consumer of the file", n.consolePage("consumers/filed/settings"), "Defined in lockstep.yml", "public.x")
	lacks(t, "the settings of a consumer of the file", n.consolePage("consumers/filed/settings"), ">Save<", ">Delete<")
}

// formOf returns what a browser would send of the form of settings.
func formOf(page string) url.Values {
	form := url.Values{}
	_, page, _ = strings.Cut(page, `<form class="make"`)
	page, _, _ = strings.Cut(page, "</form>")
	for tag := range strings.SplitSeq(page, "<") {
		name, value := attribute(tag, "name"), attribute(tag, "value")
		switch {
		case strings.HasPrefix(tag, "textarea"):
			_, text, _ := strings.Cut(tag, ">")
			form.Set(name, strings.TrimPrefix(html.UnescapeString(text), "\n"))
		case strings.HasPrefix(tag, "select"):
			form.Set("the select", name)
		case strings.HasPrefix(tag, "option") && (strings.Contains(tag, " selected") || !form.Has(form.Get("the select"))):
			form.Set(form.Get("the select"), value) // the first one, where none is chosen
		case strings.HasPrefix(tag, "input") && (!strings.Contains(tag, "checkbox") || strings.Contains(tag, " checked")):
			form.Add(name, value)
		}
	}
	form.Del("the select")
	return form
}

func attribute(tag, name string) string {
	_, value, _ := strings.Cut(tag, " "+name+`="`)
	value, _, _ = strings.Cut(value, `"`)
	return html.UnescapeString(value)
}

// Dead letters are listed, retried and dropped: those that were chosen, and all.
func TestConsoleSettlesDeadLetters(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	pgtest.Exec(t, address, `CREATE TABLE orders (id int PRIMARY KEY)`)
	n := newNode(t, address, "  []\n")
	n.slot("console_dead")
	n.start()
	made, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "a", Tables: []string{"public.orders"}, MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, address, `INSERT INTO orders SELECT generate_series(1, 120)`)
	for taken := 0; taken < 120; {
		batch, err := n.api.Next(t.Context(), "a", 200, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch.Deliveries {
			taken++
			if err := n.api.Nack(t.Context(), "a", client.Nack{Reason: "the <i>reason</i> of " + strings.Join(d.Metadata.RecordPKs, "")}, d.Token); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := "consumers/" + made.ID + "/dead"
	var page string
	pgtest.Eventually(t, 30*time.Second, "the last letter to be there", func() bool {
		page = n.consolePage(at)
		return strings.Contains(page, "reason&lt;/i&gt; of 120")
	})
	if rows := strings.Count(page, `name="seq"`); rows != 50 {
		t.Errorf("a page has %d letters, want 50", rows)
	}
	holds(t, "the first page", page, "Next page", "the &lt;i&gt;reason&lt;/i&gt; of 71")
	lacks(t, "the first page", page, "<i>", "of 70<")
	if rows := strings.Count(n.consolePage(at+"?look=long&reason="+url.QueryEscape("of 119")), `name="seq"`); rows != 1 {
		t.Errorf("a reason finds %d letters, want 1", rows)
	}
	one := attribute(page[strings.Index(page, `<input type="checkbox" name="seq"`):], "value")
	holds(t, "a letter", n.consolePage(at+"/"+one), "/console/databases/app/changes/"+one, "the &lt;i&gt;reason")
	left := func(want uint64) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, fmt.Sprint(want, " dead letters to be left"), func() bool {
			now, err := n.api.Consumer(t.Context(), "a")
			return err == nil && now.Stats.Dead == want
		})
	}
	n.send(at+"/drop", url.Values{"seq": {one}, "back": {"/console/" + at}})
	left(119)
	n.send(at+"/all/drop", url.Values{"reason": {"of 1"}, "back": {"/console/" + at}}) // 1, 10 to 19, 100 to 119
	left(88)
	n.send(at+"/all/retry", url.Values{"back": {"/console/" + at}})
	batch, err := n.api.Next(t.Context(), "a", 200, 5*time.Second)
	if err != nil || len(batch.Deliveries) != 88 {
		t.Errorf("%d changes came again (%v), want 88", len(batch.Deliveries), err)
	}
}
