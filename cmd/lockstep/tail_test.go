package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"lockstep/client"
)

// runCommand runs a command in this process and returns its exit code and what it
// wrote to standard error.
func runCommand(t *testing.T, out *os.File, args ...string) (int, string) {
	t.Helper()
	var stderr bytes.Buffer
	s := streams{in: strings.NewReader(""), out: out, err: &stderr, lookup: func(string) (string, bool) { return "", false }}
	return run(t.Context(), args, s), stderr.String()
}

func TestAClosedPipeEndsTailWithoutAWord(t *testing.T) {
	t.Parallel()
	n := newNode()
	t.Cleanup(n.close)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	for _, format := range []string{"table", "json", "yaml"} {
		if code, stderr := runCommand(t, writer, "--server", n.address(), "tail", "--from", "beginning", "-o", format); code != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, standard error %q", format, code, stderr)
		}
	}
}

func change(t *testing.T, text string) *client.Change {
	t.Helper()
	c, err := client.ParseChange([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestChangeLine(t *testing.T) {
	t.Parallel()
	const meta = `"metadata":{"table_schema":"public","table_name":"t","seq":9,"record_pks":["a","b"]}`
	cases := map[string]struct{ in, want string }{
		"insert":            {`{"action":"insert","record":{"id":"7","n":1.10,"x":null,"o":{"a": 1}},"changes":null,` + meta + `}`, `insert    public.t  (a, b)  id=7  n=1.10  x=null  o={"a": 1}`},
		"update":            {`{"action":"update","record":{"id":7,"n":"new"},"changes":{"n":"old","gone":1},` + meta + `}`, `update    public.t  (a, b)  n: old→new  gone: 1→?`},
		"update, old gone":  {`{"action":"update","record":{"id":7},"changes":null,` + meta + `}`, `update    public.t  (a, b)  id=7`},
		"delete":            {`{"action":"delete","record":{"id":7},` + meta + `}`, `delete    public.t  (a, b)`},
		"delete, no key":    {`{"action":"delete","record":{"id":7},"metadata":{"table_schema":"public","table_name":"t","seq":9}}`, `delete    public.t  id=7`},
		"truncate":          {`{"action":"truncate","record":null,"metadata":{"table_schema":"public","table_name":"t","seq":9}}`, `truncate  public.t`},
		"gap":               {`{"action":"gap","record":null,"metadata":{"table_schema":"","table_name":"","seq":9,"gap":{"missed":3}}}`, `gap       .  {"missed":3}`},
		"terminal controls": {`{"action":"insert","record":{"a":"\u001b[2Jx\ny\u202e"},"metadata":{"table_schema":"public","table_name":"t\u001b","seq":9}}`, `insert    public.t·  a=·[2Jx y`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, want := changeLine(change(t, c.in), plainPaint(), 0), "--:--:--.---  9  "+c.want; got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestChangeLineFitsTheTerminal(t *testing.T) {
	t.Parallel()
	c := change(t, `{"action":"insert","record":{"name":"`+strings.Repeat("李小龍", 30)+`"},"metadata":{"table_schema":"public","table_name":"t","seq":9}}`)
	for _, columns := range []int{60, 80, 81, 132} {
		line := changeLine(c, plainPaint(), columns)
		if w := width(line); w > columns || w < columns-2 && columns < 100 || !strings.HasSuffix(line, "…") {
			t.Errorf("%d columns: width %d: %s", columns, w, line)
		}
	}
}

func TestChangeLineColoursTheAction(t *testing.T) {
	t.Parallel()
	c := change(t, `{"action":"delete","record":null,"metadata":{"table_schema":"public","table_name":"t","seq":9}}`)
	if line := changeLine(c, colourPaint(), 80); !strings.Contains(line, "\x1b[31mdelete  \x1b[0m") {
		t.Errorf("got %q", line)
	}
}

func TestWidth(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "abc": 3, "Zoë": 3, "Zoe\u0308": 3, "李小龍": 6, "😀": 2, "한글": 4, "ｆ": 2, "→…": 2, "й": 1} {
		if got := width(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in      string
		columns int
		want    string
	}{{"abcdef", 4, "abc…"}, {"abcd", 4, "abcd"}, {"李小龍", 4, "李…"}, {"李小龍", 5, "李小…"}, {"abc", 0, "abc"}} {
		if got := truncate(c.in, c.columns); got != c.want {
			t.Errorf("%q to %d: got %q, want %q", c.in, c.columns, got, c.want)
		}
	}
}

func TestTablesAreAlignedInAnyScript(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tab := table{head: []string{"NAME", "STATE"}}
	tab.add("李小龍", "active")
	tab.add("Zoe\u0308", "paused")
	tab.add("a\nb\x1b[31m", "x")
	if err := (printer{out: &out}).table(tab); err != nil {
		t.Fatal(err)
	}
	want := "NAME      STATE\n李小龍    active\nZoe\u0308       paused\na b·[31m  x\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestYAMLKeepsOrderDigitsAndTypes(t *testing.T) {
	t.Parallel()
	in := `{"z":1,"a":123456789012345678901234567890,"d":1.10,"s":"1.10","t":"true","n":null,"e":"","l":[],"o":{},"m":"a\nb","u":"\ud83d\ude00","x":[1,{"y":false}]}`
	got, err := toYAML([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	want := "z: 1\na: 123456789012345678901234567890\nd: 1.10\ns: '1.10'\nt: 'true'\nn: null\ne: ''\nl: []\no: {}\nm: |-\n  a\n  b\nu: \"\\U0001F600\"\nx:\n- 1\n- y: false\n"
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
