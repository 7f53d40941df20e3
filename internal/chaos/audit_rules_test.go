package chaos_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"lockstep/client"
)

// change makes the delivery of a row's version; the write's number is a hundred times
// the version.
func change(seq uint64, version int, token string) client.Delivery {
	d := client.Delivery{Token: token}
	d.Action = "update"
	d.Metadata.Seq, d.Metadata.TableName, d.Metadata.RecordPKs = seq, "plain", []string{"7"}
	write := uint64(version) * 100
	d.Record = fmt.Appendf(nil, `{"id":7,"version":%d,"write":%d,"body":%q}`, version, write, bodyOf(write))
	return d
}

// TestAuditNoticesEachBrokenPromise holds the judge to its own rules: an audit that
// sees nothing proves nothing.
func TestAuditNoticesEachBrokenPromise(t *testing.T) {
	t.Parallel()
	life := int64(1)
	first, second := change(1, 1, "a"), change(2, 2, "b")
	again := change(1, 1, "c")
	list := func(ds ...client.Delivery) []client.Delivery { return ds }
	take := func(a *audit, ds ...client.Delivery) { a.receive(ds, time.Now(), life) }
	settle := func(a *audit, ds ...client.Delivery) { a.acking(ds); a.answered(ds, nil) }
	cases := []struct {
		name string
		do   func(a *audit)
		want string // empty: nothing
	}{
		{"in order", func(a *audit) { take(a, first); settle(a, first); take(a, second) }, ""},
		{"both at once", func(a *audit) { take(a, first, second) }, ""},
		{"an ack without an answer", func(a *audit) { take(a, first); a.acking(list(first)); take(a, second) }, ""},
		{"before the one before is settled", func(a *audit) { take(a, first); take(a, second) }, "before change 1 was settled"},
		{"after a refused ack", func(a *audit) {
			take(a, first)
			a.acking(list(first))
			a.answered(list(first), []string{"a"})
			take(a, second)
		}, "before change 1 was settled"},
		{"a version left out", func(a *audit) { take(a, second) }, "version 2 (change 2) came after version 0"},
		{"an older change late", func(a *audit) { take(a, change(5, 1, "a")); take(a, change(3, 1, "b")) }, "came after change 5"},
		{"again after its ack", func(a *audit) { take(a, first); settle(a, first); take(a, again) }, "again after its ack"},
		{"two holders", func(a *audit) { take(a, first); take(a, again) }, "two holders"},
		{"again after a restart", func(a *audit) { a.receive(list(first), time.Now(), life-1); take(a, again) }, ""},
		{"again after its lease", func(a *audit) { a.receive(list(first), time.Now().Add(-time.Hour), life); take(a, again) }, ""},
		{"again within a lease that was extended", func(a *audit) {
			a.receive(list(first), time.Now().Add(-time.Hour), life)
			a.extended(list(first), time.Now(), time.Minute)
			take(a, again)
		}, "two holders"},
		{"again after a nack", func(a *audit) { take(a, first); a.nacking(list(first), 1); take(a, again) }, ""},
		{"with one that was nacked", func(a *audit) {
			take(a, first, second)
			a.nacking(list(first, second), 1)
			take(a, again, change(2, 2, "d"))
		}, ""},
		{"the token of before", func(a *audit) { a.receive(list(first), time.Now(), life-1); take(a, again); settle(a, first) }, "earlier holder"},
		{"other content", func(a *audit) { a.receive(list(first), time.Now(), life-1); take(a, change(1, 2, "c")) }, "other content"},
		{"a body that nobody wrote", func(a *audit) {
			d := change(1, 1, "a")
			d.Record = []byte(strings.Replace(string(d.Record), `"body":"`, `"body":"x`, 1))
			take(a, d)
		}, "nobody wrote"},
		{"a gap", func(a *audit) { d := change(1, 1, "a"); d.Action = "gap"; take(a, d) }, "none was provoked"},
		{"a change that never came", func(a *audit) { take(a, first); a.compare(map[string][]uint64{"plain/7": {100, 200}}) }, "2 changes were committed, 1 came"},
		{"a row that never came", func(a *audit) { a.compare(map[string][]uint64{"plain/7": {100}}) }, "none came"},
		{"a change that was rolled back", func(a *audit) { take(a, first); a.compare(map[string][]uint64{"plain/7": {101}}) }, "committed was 101"},
		{"a change too many", func(a *audit) { take(a, first); a.compare(nil) }, "0 were committed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := newAudit("every", time.Minute, func() int64 { return life })
			c.do(a)
			got := strings.Join(a.problems(), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("the audit says %q, want %q", got, c.want)
			}
		})
	}
}

func TestSeedGivesTheSameAccidents(t *testing.T) {
	t.Parallel()
	one, same, other := schedule(7, 50, nil), schedule(7, 50, nil), schedule(8, 50, nil)
	if !reflect.DeepEqual(one, same) {
		t.Error("the same seed gives other accidents")
	}
	if reflect.DeepEqual(one, other) {
		t.Error("another seed gives the same accidents")
	}
	kills := 0
	for _, a := range one {
		if a.kind == killNode || a.inner {
			kills++
		}
	}
	if kills != 50 {
		t.Errorf("%d kills, want 50", kills)
	}
}
