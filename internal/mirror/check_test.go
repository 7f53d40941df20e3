package mirror_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/source"
)

// What somebody changed by hand is found, and nothing else, and a repair that rewrites
// puts it right.
func TestChangesByHandAreFoundAndRewritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	records := []source.Record{
		customer("a", 1, 1), customer("b", 1, 2), customer("c", 1, 3), customer("d", 1, 4),
		// jsonb writes the number in another way, and cannot hold the text.
		record("odd", 1, `{"id":"odd","email":"a\u0000b","balance":"x","rate":1e3,"created":5.5,"address":null,"seen":1e2}`),
		record("volatile", 1, `{"id":"volatile","balance":1,"seen":7}`),
	}
	f.put("customer", 1, records...)
	check := func(want string) { t.Helper(); f.wantEdited(records, want) }
	edited := func() string { t.Helper(); return f.edited("customer") }
	check("")
	if got := edited(); got != "odd!" {
		t.Errorf("edited: %q", got)
	}
	f.query("UPDATE api.customer SET balance = 99 WHERE id = 'a' RETURNING id")
	f.query(`UPDATE api.customer SET _raw = jsonb_set(_raw, '{email}', '"other"') WHERE id = 'b' RETURNING id`)
	f.query("UPDATE api.customer SET city = NULL WHERE id = 'c' RETURNING id")
	f.query("UPDATE api.customer SET _raw = NULL WHERE id = 'd' RETURNING id")
	f.query("UPDATE api.customer SET rate = 1 WHERE id = 'odd' RETURNING id")
	// What is volatile may differ.
	records[5].Data = []byte(`{"id":"volatile","balance":1,"seen":8}`)
	check("a b c d odd")
	if got := edited(); got != "b! a d! c odd!" {
		t.Errorf("edited: %q", got)
	}
	f.result(f.apply(mirror.Change{Collection: "customer", Records: records, At: day(2), Repair: true}), mirror.Result{Unchanged: 6})
	r := f.apply(mirror.Change{Collection: "customer", Records: records[:5], At: day(2), Repair: true, Rewrite: true})
	if r.Updated != 5 {
		t.Errorf("%+v", r)
	}
	check("")
	// A look that is older than the row rewrites nothing.
	f.result(f.apply(mirror.Change{Collection: "customer", Records: records[:1], At: day(1), Repair: true, Rewrite: true}), mirror.Result{Stale: 1})
}

func TestCompareTellsWhatTheMirrorHas(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	pgtest.Exec(t, f.url, "ALTER TABLE api.customer ADD CHECK (balance < 100)")
	f.put("customer", 5, customer("a", 1, 1), customer("b", 1, 1), customer("refused", 1, 100))
	got, err := f.Compare(t.Context(), "customer", []source.Record{
		customer("a", 1, 1), customer("b", 1, 2), customer("c", 1, 1), customer("refused", 1, 100), gone("a", 0), gone("c", 0), customer("", 1, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	var short []string
	for _, c := range got {
		short = append(short, fmt.Sprintf("there=%t equal=%t edited=%t parked=%t", c.There, c.Equal, c.Edited, c.Parked))
	}
	want := []string{
		"there=true equal=true edited=false parked=false", "there=true equal=false edited=false parked=false", "there=false equal=false edited=false parked=false",
		"there=false equal=false edited=false parked=true", "there=true equal=false edited=false parked=false", "there=false equal=true edited=false parked=false",
		"there=false equal=false edited=false parked=false",
	}
	if diff := cmp.Diff(want, short); diff != "" {
		t.Error(diff)
	}
	if !got[1].Row.SyncedAt.Equal(day(5)) || !got[1].Row.Version.Equal(day(1)) {
		t.Errorf("%+v", got[1].Row)
	}
	if _, err := f.Compare(t.Context(), "nobody", nil); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// wantEdited compares records of a collection with their rows: these were changed by
// hand, and all the others are equal.
func (f *fixture) wantEdited(records []source.Record, want string) {
	f.t.Helper()
	var got []string
	compared, err := f.Compare(f.t.Context(), "customer", records)
	if err != nil {
		f.t.Fatal(err)
	}
	for i, c := range compared {
		switch {
		case c.Edited:
			got = append(got, records[i].ID)
		case !c.Equal || !c.There || c.Parked:
			f.t.Errorf("%s: %+v", records[i].ID, c)
		}
	}
	if strings.Join(got, " ") != want {
		f.t.Errorf("edited: %v, want %s", got, want)
	}
}

// edited returns the rows that seem to have been changed by hand; ! stands for _raw.
func (f *fixture) edited(collection string) string {
	f.t.Helper()
	var got []string
	for after := ""; ; {
		list, _, next, err := f.Edited(f.t.Context(), collection, after, 2)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, e := range list {
			if e.Raw {
				e.ID += "!"
			}
			got = append(got, e.ID)
		}
		if after = next; after == "" {
			return strings.Join(got, " ")
		}
	}
}
