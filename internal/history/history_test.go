package history_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"lockstep/internal/history"
)

// minute is a moment at which a slot begins.
func minute() time.Time { return time.Unix(1_800_000_000, 0) }

func tick(n int) time.Time { return minute().Add(time.Duration(n) * history.Every) }

// text writes values as a test reads them.
func text(values []float64) string {
	var out []string
	for _, v := range values {
		if history.Missing(v) {
			out = append(out, "-")
			continue
		}
		out = append(out, fmt.Sprintf("%g", v))
	}
	return strings.Join(out, " ")
}

func want(t *testing.T, what string, got []float64, want string) {
	t.Helper()
	if text(got) != want {
		t.Errorf("%s: %s, want %s", what, text(got), want)
	}
}

func sample(n int, changes uint64, consumers map[string]history.Consumer) history.Sample {
	return history.Sample{
		At: tick(n), Node: history.Node{RSS: int64(n) + 100, Goroutines: n + 10},
		Databases: map[string]history.Database{"app": {Changes: changes, Lag: int64(n)}}, Consumers: consumers,
	}
}

func TestSamplesThatAreMissingAreNotZero(t *testing.T) {
	t.Parallel()
	h := history.New(history.Config{})
	h.Add(sample(2, 100, nil))
	h.Add(sample(3, 150, nil))
	late := sample(4, 250, nil)
	late.At = late.At.Add(2 * time.Second) // it woke late: the rate is that of 12 seconds
	h.Add(late)
	// nothing at 5: the node hung
	h.Add(sample(6, 300, nil))
	h.Add(sample(7, 20, nil)) // capture began to count anew
	h.Add(sample(8, 30, nil))
	again := sample(8, 999, nil)
	again.At = again.At.Add(time.Second)
	h.Add(again)
	h.Add(sample(3, 999, nil)) // the clock was set back

	got := h.Read(history.Query{Now: tick(8), Since: 80 * time.Second})
	if len(got.At) != 8 || got.At[0] != tick(1).Unix() || got.At[7] != tick(8).Unix() {
		t.Fatalf("times %v", got.At)
	}
	want(t, "changes", got.Databases["app"].Changes, "- - 5 8.333333333333334 - - - 1")
	want(t, "lag", got.Databases["app"].Lag, "- 2 3 4 - 6 7 8")
	want(t, "rss", got.Node.RSS, "- 102 103 104 - 106 107 108")
	want(t, "goroutines", got.Node.Goroutines, "- 12 13 14 - 16 17 18")

	if all := h.Read(history.Query{Now: tick(8)}); len(all.At) != history.Kept || len(all.Databases["app"].Lag) != history.Kept {
		t.Errorf("without an end the hour has %d places", len(all.At))
	}
	// An hour later nothing is left of it, though its places are still in memory.
	late.At = tick(8 + history.Kept)
	h.Add(late)
	got = h.Read(history.Query{Now: late.At})
	want(t, "lag after an hour", got.Databases["app"].Lag[:history.Kept-1], strings.TrimSuffix(strings.Repeat("- ", history.Kept-1), " "))
}

func TestConsumersAreFoundByIDAndNameAlsoWhenTheyCameLaterOrWent(t *testing.T) {
	t.Parallel()
	h := history.New(history.Config{})
	early := history.Consumer{Name: "mail", Database: "app", Pending: 7, InFlight: 1, Delivered: 100, Redelivered: 5, Settled: 90, OldestUnacked: 1500 * time.Millisecond}
	h.Add(sample(1, 0, map[string]history.Consumer{"id-1": early}))
	early.Delivered, early.Redelivered, early.Settled = 200, 8, 150
	h.Add(sample(2, 0, map[string]history.Consumer{"id-1": early, "id-2": {Name: "index", Database: "app"}}))
	h.Add(sample(3, 0, map[string]history.Consumer{"id-2": {Name: "index", Database: "app", Pending: 3}}))

	for _, q := range []string{"id-1", "mail"} {
		got := h.Read(history.Query{Now: tick(3), Since: 30 * time.Second, Consumers: []string{q}})
		if len(got.Consumers) != 1 || len(got.Databases) != 0 || len(got.Node.RSS) != 0 {
			t.Fatalf("%s: %d consumers, %d databases", q, len(got.Consumers), len(got.Databases))
		}
		mail := got.Consumers["mail"]
		if mail.ID != "id-1" || mail.Database != "app" {
			t.Errorf("%s: %s of %s", q, mail.ID, mail.Database)
		}
		want(t, "pending", mail.Pending, "7 7 -")
		want(t, "in flight", mail.InFlight, "1 1 -")
		want(t, "delivered", mail.Delivered, "- 10 -")
		want(t, "settled", mail.Settled, "- 6 -")
		want(t, "redelivered", mail.Redelivered, "- 3 -")
		want(t, "oldest", mail.OldestUnacked, "1.5 1.5 -")
	}
	some := h.Read(history.Query{Now: tick(3), Since: 30 * time.Second, Consumers: []string{"id-2", "mail", "nobody"}})
	if len(some.Consumers) != 2 || len(some.Databases) != 0 || some.Consumers["mail"].ID != "id-1" || some.Consumers["index"].ID != "id-2" {
		t.Errorf("of two by name and id: %d consumers, %d databases", len(some.Consumers), len(some.Databases))
	}
	all := h.Read(history.Query{Now: tick(3), Since: 30 * time.Second})
	want(t, "who came later", all.Consumers["index"].Pending, "- 0 3")
	if one := h.Read(history.Query{Now: tick(3), Database: "app"}); len(one.Consumers) != 0 || len(one.Databases) != 1 {
		t.Errorf("of one database: %d consumers, %d databases", len(one.Consumers), len(one.Databases))
	}
	// An hour after its end a consumer is forgotten.
	h.Add(sample(3+history.Kept, 0, map[string]history.Consumer{"id-3": {Name: "new"}}))
	if got := h.Read(history.Query{Now: tick(3 + history.Kept)}); len(got.Consumers) != 1 {
		t.Errorf("an hour later there are %d consumers", len(got.Consumers))
	}
}

func TestTheRateIsThatOfTheLastMinute(t *testing.T) {
	t.Parallel()
	h := history.New(history.Config{})
	now := time.Now().Truncate(history.Every)
	if _, known := h.Rate("id"); known {
		t.Error("there is a rate of a consumer that nobody knows")
	}
	settled := uint64(0)
	for n := -20; n <= 0; n++ {
		if n > -6 {
			settled += 50
		} else {
			settled += 5000
		}
		h.Add(history.Sample{At: now.Add(time.Duration(n) * history.Every), Consumers: map[string]history.Consumer{"id": {Settled: settled}}})
	}
	if rate, known := h.Rate("id"); !known || rate != 5 {
		t.Errorf("rate %v, %v; want 5", rate, known)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	h := history.New(history.Config{})
	consumers := map[string]history.Consumer{}
	for i := range 500 {
		consumers[fmt.Sprintf("id-%d", i)] = history.Consumer{Name: fmt.Sprintf("consumer-%d", i), Database: "app"}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range 2 * history.Kept {
		h.Add(sample(n, 0, consumers))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 20<<20 || used < 1<<20 {
		t.Errorf("500 consumers take %d MB, at most 20 are promised", used>>20)
	}
	runtime.KeepAlive(h)
}

func TestThereAreNotMoreSeriesThanAllowed(t *testing.T) {
	t.Parallel()
	h := history.New(history.Config{Most: 3})
	for n := range 100 { // one comes and goes every ten seconds
		h.Add(sample(n, 0, map[string]history.Consumer{"stays": {Name: "stays"}, fmt.Sprint(n): {Name: fmt.Sprint(n)}}))
	}
	got := h.Read(history.Query{Now: tick(99)})
	if _, stayed := got.Consumers["stays"]; len(got.Consumers) != 3 || !stayed {
		t.Errorf("there are %d series", len(got.Consumers))
	}
	if _, newest := got.Consumers["99"]; !newest {
		t.Error("the newest one is not kept")
	}
}
