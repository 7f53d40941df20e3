package bench

import (
	"bytes"
	"errors"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/client"
	"lockstep/source/rest"
	"lockstep/source/stripe"
)

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		runs []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{5, 1, 3}, Spread{3, 1, 5}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
	} {
		if got := spread(tc.runs); got != tc.want {
			t.Errorf("spread of %v: %v, want %v", tc.runs, got, tc.want)
		}
	}
}

func TestAFigureIsJudgedByItsMedian(t *testing.T) {
	t.Parallel()
	f := figure("case", "name", "", []float64{0.7, 0.8, 0.9})
	for _, tc := range []struct {
		f    Figure
		want bool
	}{
		{f.atLeast(0.8, ""), true}, {f.atLeast(0.81, ""), false},
		{f.below(0.8, ""), false}, {f.below(0.81, ""), true},
	} {
		if *tc.f.Reached != tc.want {
			t.Errorf("median %v: reached %v, want %v", tc.f.Median, *tc.f.Reached, tc.want)
		}
	}
	if f.Reached != nil {
		t.Error("a figure without an aim was judged")
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0.00", 0.834: "0.83", 12.34: "12.3", 999: "999", 1000: "1,000", 263282.4: "263,282", 1e6: "1,000,000", -1234: "-1,234", -123: "-123"} {
		if got := Number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// deliveries are changes with those seqs.
func deliveries(seqs ...uint64) []client.Delivery {
	out := make([]client.Delivery, len(seqs))
	for i, seq := range seqs {
		out[i].Metadata.Seq = seq
	}
	return out
}

func TestATallyNoticesWhatIsMissingAndWhatComesAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		steps func(*tally) error
		wrong string
	}{
		"each once": {func(c *tally) error {
			err := c.take(deliveries(11, 13, 12), never)
			c.settle(deliveries(11, 13, 12))
			return errors.Join(err, c.check())
		}, ""},
		"one missing": {func(c *tally) error {
			err := c.take(deliveries(11, 13), never)
			c.settle(deliveries(11, 13))
			return errors.Join(err, c.check())
		}, "2 changes were acked, expected 3"},
		"acked twice counts once": {func(c *tally) error {
			c.settle(deliveries(11, 12, 12))
			return c.check()
		}, "2 changes were acked, expected 3"},
		"one too many": {func(c *tally) error {
			c.settle(deliveries(11, 12, 13, 5000))
			return c.check()
		}, "4 changes were acked, expected 3"},
		"handed out twice": {func(c *tally) error {
			return errors.Join(c.take(deliveries(11), never), c.take(deliveries(11), never))
		}, "change 11 came twice"},
		"handed out twice around a kill": {func(c *tally) error {
			return errors.Join(c.take(deliveries(11), untilAcks), c.take(deliveries(11), untilAcks))
		}, ""},
		"after its ack": {func(c *tally) error {
			c.settle(deliveries(11))
			return c.take(deliveries(11), untilAcks)
		}, "change 11 came again after its ack"},
		"of another run": {func(c *tally) error { return c.take(deliveries(10), never) }, "lies before the first one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.steps(newTally(10, 3))
			if tc.wrong == "" && err != nil || tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
				t.Errorf("got %v, want %q", err, tc.wrong)
			}
		})
	}
}

func TestATallyTellsWhenItIsFull(t *testing.T) {
	t.Parallel()
	c := newTally(0, 2)
	c.settle(deliveries(1))
	select {
	case <-c.full:
		t.Fatal("full with one of two")
	default:
	}
	c.settle(deliveries(2))
	<-c.full
	c.settle(deliveries(3)) // must not close it again
}

func TestABackfillGivesEachRowOnce(t *testing.T) {
	t.Parallel()
	row := func(id string, action string) *client.Delivery {
		var d client.Delivery
		d.Action, d.Metadata.RecordPKs = action, []string{id}
		return &d
	}
	judge := eachIDOnce()
	if err := errors.Join(judge(row("1", "read")), judge(row("70000", "read"))); err != nil {
		t.Error(err)
	}
	for wrong, d := range map[string]*client.Delivery{"read twice": row("70000", "read"), "expected read": row("2", "insert"), "invalid syntax": row("x", "read")} {
		if err := judge(d); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("got %v, want %q", err, wrong)
		}
	}
}

func TestCostsAreRatiosToOneConsumerOfTheSameRound(t *testing.T) {
	t.Parallel()
	cases := []spreadOut{{consumers: 1}, {consumers: 10}, {consumers: 1, again: true}, {consumers: 1, same: true}, {consumers: 50, same: true}, {consumers: 1, same: true, again: true}}
	runs := [][]cost{{{cpu: 4}, {cpu: 8}}, {{cpu: 6}, {cpu: 8}}, {{cpu: 4.4}, {cpu: 8}}, {{cpu: 2}, {cpu: 2}}, {{cpu: 1}, {cpu: 3}}, {{cpu: 2}, {cpu: 3}}}
	var got []Figure
	for _, f := range costs(cases, "backlog", runs) {
		if f.Unit == "" {
			got = append(got, f)
		}
	}
	if len(got) != 2 {
		t.Fatalf("%d ratios, want 2: %v", len(got), got)
	}
	if f := got[0]; f.Case != "backlog: 10 consumers, disjoint tables" || f.Runs[0] != 1.5 || f.Runs[1] != 1 || math.Abs(f.Floor.Max-1.1) > 1e-9 {
		t.Errorf("disjoint: %+v", f)
	}
	if f := got[1]; f.Case != "backlog: 50 consumers, the same table" || f.Runs[0] != .5 || f.Runs[1] != 1.5 || f.Floor.Max != 1.5 {
		t.Errorf("same table: %+v", f)
	}
}

func TestAProcessIsSeenFromOutside(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("needs Linux' /proc: elsewhere these benchmarks say that they cannot run")
	}
	m, err := memoryOf(os.Getpid())
	if err != nil || m.resident < 1 || m.peak < m.own || m.own <= 0 {
		t.Errorf("memory of the test: %+v, %v", m, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ownCPU() < 50*time.Millisecond && time.Now().Before(deadline); {
		// uses CPU time until there is some to see
	}
	for name, of := range map[string]func(int) (time.Duration, error){"fine": processCPU, "coarse": coarseCPU} {
		// Other tests of this process go on meanwhile.
		low := ownCPU() - 2*ticks
		cpu, err := of(os.Getpid())
		if high := ownCPU() + 2*ticks; err != nil || cpu < low || cpu > high {
			t.Errorf("%s: %s, want %s to %s: %v", name, cpu, low, high, err)
		}
	}
	if _, err := coarseCPU(1 << 30); !errors.Is(err, lockstep.ErrEnvironment) {
		t.Errorf("a process that is not there: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	full, err := Options{}.filled()
	if err != nil {
		t.Fatal(err)
	}
	if full.Rows != 200_000 || full.Rounds != 5 || full.Backlog != 1_000_000 || full.Transaction != 5_000_000 {
		t.Errorf("defaults: %+v", full)
	}
	quick, err := Options{Quick: true, Rows: 2001}.filled()
	if err != nil || quick.Rows != 4000 || quick.Backlog >= full.Backlog {
		t.Errorf("quick: %+v, %v", quick, err)
	}
	if _, err := (Options{Rounds: -1}).filled(); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("rounds -1: %v", err)
	}
}

func TestAShareIsCountedBehindTheFirstBurst(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(second float64, endpoint string, status int) asked {
		return asked{At: start.Add(time.Duration(second * float64(time.Second))), Endpoint: endpoint, Status: status}
	}
	var log []asked
	for i := range 40 { // a burst
		log = append(log, at(float64(i)/100, listing, 200))
	}
	for i := range 50 {
		log = append(log, at(1+float64(i)/25, listing, 200), at(1+float64(i)/25, "GET /v1/events", 200))
	}
	log = append(log, at(1.5, listing, 429), at(3, listing, 200))
	lists, refused, err := used(log, func(a asked) bool { return a.Endpoint == listing })
	if err != nil || math.Abs(lists-1) > 1e-9 || refused != 1 {
		t.Errorf("of the list: %v, %v refused, %v", lists, refused, err)
	}
	if all, _, err := used(log, func(asked) bool { return true }); err != nil || math.Abs(all-2) > 1e-9 {
		t.Errorf("of the account: %v, %v", all, err)
	}
	if _, _, err := used(log[:40], func(asked) bool { return true }); err == nil {
		t.Error("a share of less than a second")
	}
}

func TestThePlaceInAListIsFoundWithoutDecoding(t *testing.T) {
	t.Parallel()
	if id := lastID([]byte(`{"data":[{"id":"cus_1","x":{"id":"card_1"}},{"id":"cus_2"}],"has_more":true}`)); id != "cus_2" {
		t.Errorf("got %q", id)
	}
	if id := lastID([]byte(`{"data":[]}`)); id != "" {
		t.Errorf("got %q", id)
	}
}

// The benchmark's spec is Stripe's, but for the limits.
func TestTheUnlimitedSpecIsStripes(t *testing.T) {
	t.Parallel()
	text, err := unlimited()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := rest.Parse("stripe.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := stripe.Spec("")
	if err != nil {
		t.Fatal(err)
	}
	if len(ours.Limits)+len(ours.Buckets) > 0 {
		t.Error("it has limits")
	}
	inside := cmp.Exporter(func(reflect.Type) bool { return true })
	placeless := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".At" }, cmp.Ignore())
	for name, pair := range map[string][2]any{
		"fields":  {ours.Collections["customer"].Fields, theirs.Collections["customer"].Fields},
		"list":    {ours.Collections["customer"].List, theirs.Collections["customer"].List},
		"get":     {ours.Collections["customer"].Get, theirs.Collections["customer"].Get},
		"created": {ours.Collections["customer"].Created, theirs.Collections["customer"].Created},
		"deleted": {ours.Collections["customer"].Deleted, theirs.Collections["customer"].Deleted},
		"object":  {ours.Collections["customer"].Object, theirs.Collections["customer"].Object},
		"sweep":   {ours.Collections["customer"].Sweep, theirs.Collections["customer"].Sweep},
		"page":    {ours.Page, theirs.Page},
		"version": {ours.Headers["Stripe-Version"], theirs.Headers["Stripe-Version"]},
	} {
		if diff := cmp.Diff(pair[1], pair[0], inside, placeless); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAMedianIsSureWhenEnoughRunsAgree(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		runs []float64
		want string // of reached, and of the aim's text
	}{
		"five runs":               {[]float64{1, 1, 1, 1, 1}, "open under 1.10 (too few rounds to decide)"},
		"six that agree":          {[]float64{1, .9, 1.05, 1.01, 1, 1.02}, "true under 1.10 (median in 0.90 to 1.05)"},
		"one of six is above":     {[]float64{1, .9, 1.2, 1.01, 1, 1.02}, "open under 1.10 (median in 0.90 to 1.20)"},
		"one of nine is above":    {[]float64{1, .9, 9, 1.01, 1, 1.02, 1, 1, 1}, "true under 1.10 (median in 1.00 to 1.02)"},
		"all are above":           {[]float64{1.2, 1.3, 1.4, 1.5, 1.6, 1.7}, "false under 1.10 (median in 1.20 to 1.70)"},
		"fifteen, three of which": {[]float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2}, "true under 1.10 (median in 1.00 to 1.00)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := figure("", "", "", tc.runs).surelyBelow(1.1, "under 1.10")
			reached := "open"
			if f.Reached != nil {
				reached = strconv.FormatBool(*f.Reached)
			}
			if got := reached + " " + f.Aim; got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestAMessageOfARowHasTheMembersOfTheNodes(t *testing.T) {
	t.Parallel()
	body, err := renderMany(11, 2)
	if err != nil {
		t.Fatal(err)
	}
	a := newArrivals(10, 2)
	if a.arrive(body, time.Now()); a.failed != nil || a.count != 2 {
		t.Errorf("%d changes were found: %v", a.count, a.failed)
	}
	one, err := render(11)
	if err != nil {
		t.Fatal(err)
	}
	const row = 200 // bytes, about, beside some 500 of metadata
	if !bytes.Contains(one, []byte(`"email":"user11@example.com","amount":"0.11"`)) || len(one) < 3*row || len(one) > 5*row {
		t.Errorf("%d bytes: %s", len(one), one)
	}
}
