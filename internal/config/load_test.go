package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/config"
)

func TestLoadNamesTheFileInErrors(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "my.yml")
	if err := os.WriteFile(path, []byte("\nlisten: nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(path, options(""))
	if want := path + `:2:9: listen: "nowhere" is not an address`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want it to begin with %s", err, want)
	}
}

func TestASpecLiesRelativeToTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, spec := filepath.Join(dir, "my.yml"), filepath.Join(dir, "specs", "shop.yaml")
	if err := errors.Join(
		os.Mkdir(filepath.Dir(spec), 0o700),
		os.WriteFile(spec, []byte("name: shop\n"), 0o600),
		os.WriteFile(file, []byte("syncs: [{name: a, provider: rest, spec: specs/shop.yaml}, {name: b, provider: rest, schema: b, spec: "+spec+"}]"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, options(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Syncs {
		if s.SpecFile != spec || s.Spec != "name: shop\n" || s.Database != "app" {
			t.Errorf("read %s: %q into %s", s.SpecFile, s.Spec, s.Database)
		}
	}
	if err := os.WriteFile(spec, bytes.Repeat([]byte("#"), config.MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(file, options("")); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a spec without an end: %v", err)
	}
}

func TestLoadOfAFileThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, err := config.Load(filepath.Join(t.TempDir(), "none.yml"), options(""))
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "there is no file") {
		t.Errorf("got %v", err)
	}
	if _, err := config.Load(t.TempDir(), options("")); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("a directory gave %v", err)
	}
}

func TestLoadWithoutAFileGivesTheDefaults(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := config.Load("", options("LOCKSTEP_PG_BIN=/opt/pg/bin"))
	if err != nil {
		t.Fatal(err)
	}
	if c.File != "" || c.Listen != "127.0.0.1:7300" || c.DataDir != ".lockstep" || len(c.Databases) != 1 || c.Databases[0].Name != "app" || c.PGBin != "/opt/pg/bin" {
		t.Errorf("got %+v", c)
	}
}

func TestParseRefusesAFileThatIsTooLarge(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("x", bytes.Repeat([]byte("#"), config.MaxFileBytes+1), options(""))
	if !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// Aliases must make neither endless work nor endless reports.
func TestParseBoundsTheWorkOfAliases(t *testing.T) {
	t.Parallel()
	var wrong, right strings.Builder
	wrong.WriteString("consumers:\n- &c {name: c")
	for i := range 20_000 {
		fmt.Fprintf(&wrong, ", unknown%d: 1", i)
	}
	wrong.WriteString("}\n" + strings.Repeat("- *c\n", 50_000))
	right.WriteString("consumers:\n- {name: c, tables: &t [" + strings.Repeat("a.b, ", 50_000) + "]}\n")
	for i := range 10_000 {
		fmt.Fprintf(&right, "- {name: c%d, tables: *t}\n", i)
	}
	for name, text := range map[string]string{"wrong": wrong.String(), "right": right.String()} {
		_, err := config.Parse("x", []byte(text), options(""))
		var problems config.Problems
		if !errors.As(err, &problems) || len(problems) > 1002 {
			t.Errorf("%s: got %d problems, %v", name, len(problems), err == nil)
		}
		if name == "right" && !strings.Contains(err.Error(), "aliases repeat too much") {
			t.Errorf("got %v", err)
		}
	}
}

func TestSecretsNeverShow(t *testing.T) {
	t.Parallel()
	const key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	c, err := config.Parse("x", []byte(`
tokens: [{name: a, token: hunter2hunter2, scopes: [admin]}]
stream: {url: "nats://u:hunter2@n1"}
databases:
  - {name: a, url: "postgres://u:hunter2@h/db?password=hunter2"}
  - {name: b, url: "host=h password=hunter2"}
syncs:
  - {name: s, provider: stripe, database: a, credential: {properties: {secret: hunter2}}}
`), options("LOCKSTEP_KEY="+key))
	if err != nil {
		t.Fatal(err)
	}
	if c.Syncs[0].Credential.Properties["secret"].Reveal() != "hunter2" || c.Tokens[0].Token.Reveal() != "hunter2hunter2" || len(c.Key.Reveal()) != 32 || !strings.Contains(c.Databases[0].URL.Reveal(), "hunter2@") {
		t.Fatalf("Reveal does not reveal")
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "t", c.Tokens[0].Token, "u", c.Databases[0].URL, "k", c.Key)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "t", c.Tokens[0].Token, "u", c.Databases[0].URL, "k", c.Key)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, verb+verb+verb+verb, c, c.Tokens[0].Token, c.Databases, c.Key)
	}
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), c.Key.Reveal(), key} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q shows in:\n%s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), "postgres://u@h/db") {
		t.Errorf("the harmless part of an address does not show")
	}
}

func TestATokenInPlaceOfAUserDoesNotShow(t *testing.T) {
	t.Parallel()
	for address, want := range map[config.URL]string{
		"nats://s3cr3tt0ken@n1:4222":      "nats://n1:4222",
		"nats://ann:hunter2@n1:4222":      "nats://ann@n1:4222",
		"postgres://postgres@h/db":        "postgres://postgres@h/db",
		"postgresql://u@h/db?sslmode=x":   "postgresql://u@h/db",
		"postgres://u:hunter2@h:5432/db2": "postgres://u@h:5432/db2",
	} {
		if got := address.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "512": 512, "1KB": 1000, "1k": 1000, "1KiB": 1024, "50GB": 50e9, "1.5 GB": 15e8, "2TiB": 2 << 40, "7B": 7} {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GB", "-1GB", "1XB", "NaN", "Inf", "1e300", "99999999999PB", "1 2GB", "iB"} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"0": 0, "0ms": 0, "168h": 168 * time.Hour, "7d": 168 * time.Hour, "1m30s": 90 * time.Second} {
		if got, err := config.ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "30", "-1s", "1 week", "999999999999d", "d", "1.5d"} {
		if got, err := config.ParseDuration(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, got)
		}
	}
}

func TestParseStartReadsWhatStringWrites(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"now", "beginning", "seq:42", "2026-11-01T00:00:00.5Z", "1h0m0s"} {
		s, err := config.ParseStart(text)
		if err != nil || s.String() != text {
			t.Errorf("%s: got %q, %v", text, s, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:7300": true, "127.9.9.9:0": true, "[::1]:7300": true, "localhost:1": true,
		":7300": false, "0.0.0.0:7300": false, "[::]:7300": false, "10.0.0.1:1": false, "localhost.evil.example:1": false,
	} {
		if got, err := config.Loopback(address); err != nil || got != want {
			t.Errorf("%s: got %t, %v; want %t", address, got, err, want)
		}
	}
	for _, address := range []string{"", "7300", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:http"} {
		if _, err := config.Loopback(address); err == nil {
			t.Errorf("%q: want an error", address)
		}
	}
}

func TestCheckListen(t *testing.T) {
	t.Parallel()
	open := config.Default()
	if err := open.CheckListen("0.0.0.0:1"); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if err := open.CheckListen("[::1]:1"); err != nil {
		t.Errorf("got %v", err)
	}
	guarded := config.Default()
	guarded.Tokens = []config.Token{{Name: "a", Token: "b"}}
	if err := guarded.CheckListen("0.0.0.0:1"); err != nil {
		t.Errorf("got %v", err)
	}
}

// FuzzParse looks for panics, errors without a text, and configurations that come
// out incomplete.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		_, rest, _ := bytes.Cut(data, []byte("-- lockstep.yml --\n"))
		body, _, _ := bytes.Cut(rest, []byte("\n-- "))
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("fuzz.yml", data, options("A=b"))
		if err != nil {
			if err.Error() == "" || c != nil {
				t.Fatalf("got %v with %+v", err, c)
			}
			return
		}
		if len(c.Databases) == 0 || c.Database == "" || c.Listen == "" || c.DataDir == "" {
			t.Fatalf("incomplete: %+v", c)
		}
		for _, s := range c.Syncs {
			if s.Name == "" || s.Provider == "" || s.Database == "" || s.Schema == "" {
				t.Fatalf("incomplete: %+v", s)
			}
		}
		for _, consumer := range c.Consumers {
			if consumer.Name == "" || consumer.Database == "" || consumer.MaxInFlight < 1 || consumer.AckWait <= 0 {
				t.Fatalf("incomplete: %+v", consumer)
			}
		}
	})
}

func TestTheNATSListenerIsChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"stream: {listen: 127.0.0.1:7422}":                                                           "",
		"tokens: [{name: a, token: b, scopes: [read]}]\nstream:\n  listen: 10.0.0.7:7422":            "",
		"stream:\n  listen: nowhere":                                                                 "lockstep.yml:2:11: stream.listen: \"nowhere\" is not an address, write host:port, such as 127.0.0.1:7422",
		"stream: {retention: {age: 1h}, listen: \":7422\"}":                                          "lockstep.yml:1:40: stream.listen: :7422 can be reached from outside and no token is configured, add one under tokens, or listen on 127.0.0.1",
		"stream: {listen: [127.0.0.1:7422]}":                                                         "lockstep.yml:1:18: stream.listen: expected text, got a list, write one value",
		"listen: 0.0.0.0:1\ntokens: [{name: a, token: b, scopes: [read]}]\nstream: {listen: \":0\"}": "",
	} {
		c, err := config.Parse("lockstep.yml", []byte(text), config.Options{})
		if got := fmt.Sprint(err); (err == nil) != (want == "") || err != nil && got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
		if err == nil && c.Stream.Listen == "" {
			t.Errorf("%s: not read", text)
		}
	}
}
