package value

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// table is a pg_type that a test writes itself, and counts the queries.
type table struct {
	types   []Type
	queries int
	err     error
}

func (f *table) fetch(context.Context, []uint32) ([]Type, error) {
	f.queries++
	return f.types, f.err
}

func mustEncode(t *testing.T, c *Catalog, oid uint32, text string) string {
	t.Helper()
	e, err := c.Encoder(t.Context(), oid)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := e.Append(nil, []byte(text))
	return string(out)
}

func TestBuiltinTypesNeedNoQuery(t *testing.T) {
	t.Parallel()
	f := &table{}
	c := NewCatalog(f.fetch, Options{})
	for oid := range builtins(Options{}) {
		if _, err := c.Encoder(t.Context(), oid); err != nil {
			t.Error(err)
		}
	}
	if f.queries != 0 {
		t.Errorf("%d queries", f.queries)
	}
}

func TestAllTypesAreReadInOneQuery(t *testing.T) {
	t.Parallel()
	f := &table{types: []Type{
		{OID: 20001, Name: "mood", Kind: "e"},
		{OID: 20002, Name: "_mood", Kind: "b", Elem: 20001, ElemDelim: ","},
		{OID: 20003, Name: "hstore", Kind: "b"},
		{OID: 20004, Name: "ids", Kind: "d", Base: 1007},
		{OID: 20005, Name: "_ids", Kind: "b", Elem: 20004, ElemDelim: ","},
		{OID: 20006, Name: "over", Kind: "d", Base: 20004},
		{OID: 20007, Name: "vector", Kind: "b"},
		{OID: 20008, Name: "sparsevec", Kind: "b"},
		{OID: 20009, Name: "hstore", Kind: "c"},
		{OID: 20010, Name: "_semi", Kind: "b", Elem: 20001, ElemDelim: ";"},
		{OID: 20011, Name: "_rows", Kind: "b", Elem: 99999, ElemDelim: ","},
	}}
	c := NewCatalog(f.fetch, Options{})
	for _, want := range []struct {
		oid       uint32
		text, out string
	}{
		{20001, "glad", `"glad"`},
		{20002, "{glad,NULL}", `["glad",null]`},
		{20003, `"a"=>NULL`, `{"a":null}`},
		{20004, "{1,2}", `[1,2]`},
		{20005, `{"{1,2}"}`, `[[1,2]]`},
		{20006, "{1,2}", `[1,2]`},
		{20007, "[1,2]", `[1,2]`},
		{20008, "{1:1}/2", `"{1:1}/2"`},
		{20009, `("a")`, `"(\"a\")"`},
		{20010, "{a;b}", `["a","b"]`},
		{20011, `{"(1,2)"}`, `["(1,2)"]`},
	} {
		if got := mustEncode(t, c, want.oid, want.text); got != want.out {
			t.Errorf("type %d: %s, want %s", want.oid, got, want.out)
		}
	}
	if f.queries != 1 {
		t.Errorf("%d queries", f.queries)
	}
}

func TestTypeCreatedLaterIsFound(t *testing.T) {
	t.Parallel()
	f := &table{types: []Type{{OID: 20001, Kind: "e"}}}
	c := NewCatalog(f.fetch, Options{})
	mustEncode(t, c, 20001, "x")
	f.types = append(f.types, Type{OID: 20002, Kind: "d", Base: 23})
	if got := mustEncode(t, c, 20002, "7"); got != "7" {
		t.Errorf("got %s", got)
	}
	mustEncode(t, c, 20001, "x")
	if f.queries != 2 {
		t.Errorf("%d queries", f.queries)
	}
}

func TestDroppedTypeIsTextAndAskedForOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &table{}
		c := NewCatalog(f.fetch, Options{})
		for range 3 {
			if got := mustEncode(t, c, 20001, "{1}"); got != `"{1}"` {
				t.Errorf("got %s", got)
			}
		}
		if f.queries != 1 {
			t.Errorf("%d queries", f.queries)
		}
		f.types = []Type{{OID: 20001, Kind: "d", Base: 1007}}
		<-time.After(unknownFor)
		if got := mustEncode(t, c, 20001, "{1}"); got != `[1]` || f.queries != 2 {
			t.Errorf("got %s after %d queries", got, f.queries)
		}
	})
}

func TestUnreadableCatalogIsAnErrorAndNotRemembered(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection lost")
	f := &table{err: broken}
	c := NewCatalog(f.fetch, Options{})
	if _, err := c.Encoder(t.Context(), 20001); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	f.err, f.types = nil, []Type{{OID: 20001, Kind: "d", Base: 23}}
	if got := mustEncode(t, c, 20001, "7"); got != "7" {
		t.Errorf("got %s", got)
	}
}

func TestResetForgetsTheOidsOfAnotherCluster(t *testing.T) {
	t.Parallel()
	f := &table{types: []Type{{OID: 20001, Kind: "d", Base: 23}}}
	c := NewCatalog(f.fetch, Options{})
	mustEncode(t, c, 20001, "7")
	c.Reset()
	f.types = []Type{{OID: 20001, Kind: "e"}}
	if got := mustEncode(t, c, 20001, "7"); got != `"7"` {
		t.Errorf("got %s", got)
	}
}

func TestDamagedCatalogDoesNotLoop(t *testing.T) {
	t.Parallel()
	f := &table{types: []Type{{OID: 20001, Kind: "d", Base: 20002}, {OID: 20002, Kind: "b", Elem: 20001}}}
	c := NewCatalog(f.fetch, Options{})
	if got := mustEncode(t, c, 20001, "x"); got != `"x"` {
		t.Errorf("got %s", got)
	}
}
