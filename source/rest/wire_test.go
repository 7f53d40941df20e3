package rest_test

import (
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lockstep/locksteptest"
	"lockstep/source"
	"lockstep/source/rest"
)

const things = "\nrecords: data\npage: {kind: none}\ncollections: {thing: {list: {path: /things}, get: {path: \"/things/{id}\"}}}\n"

const keyed = "credential: {key: {secret: true}}\nauth: {kind: bearer, token: \"{credential.key}\"}" + things

// The credential stays with the host, whoever the API sends to.
func TestRedirects(t *testing.T) {
	t.Parallel()
	var leaked string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked = r.Header.Get("Authorization") }))
	t.Cleanup(other.Close)
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/things":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/things/moved":
			http.Redirect(w, r, "/things/here", http.StatusMovedPermanently)
		case "/things/loop":
			http.Redirect(w, r, "/things/loop", http.StatusFound)
		default:
			write(w, object{"id": "moved", "auth": r.Header.Get("Authorization")})
		}
	})
	s := openWith(t, f, keyed, rest.Options{Credential: map[string]string{"key": "sesame123"}})
	_, err := s.Backfill(t.Context(), "thing", nil)
	_ = kind(t, err, source.Failed)
	if leaked != "" || strings.Contains(err.Error(), "sesame") {
		t.Errorf("the other host got %q; %v", leaked, err)
	}
	page, err := s.Get(t.Context(), "thing", []string{"moved"})
	if err != nil || len(page.Records) != 1 || !strings.Contains(string(page.Records[0].Data), "Bearer sesame123") {
		t.Errorf("within the host: %v, %v", page.Records, err)
	}
	_, err = s.Get(t.Context(), "thing", []string{"loop"})
	_ = kind(t, err, source.Failed)
}

func TestErrorsHoldNoCredential(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		write(w, object{"message": "who is " + r.Header.Get("Authorization") + "?"})
	})
	s := openWith(t, f, keyed, rest.Options{Credential: map[string]string{"key": "sesame123"}})
	_, err := s.Backfill(t.Context(), "thing", nil)
	if e := kind(t, err, source.Invalid); strings.Contains(e.Message, "sesame") || !strings.Contains(e.Message, "who is Bearer [hidden]?") {
		t.Error(err)
	}
	f.Close()
	_, err = s.Backfill(t.Context(), "thing", nil)
	if e := kind(t, err, source.Retry); strings.Contains(e.Message, "sesame") {
		t.Error(err)
	}
}

func TestBodiesAreWholeOrErrors(t *testing.T) {
	t.Parallel()
	whole := `{"data":[{"id":"a"}]}`
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		kind   source.Kind
	}{
		"wrong Content-Length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(whole))
		}, source.Retry},
		"broken gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte(whole))
		}, source.Retry},
		"too large": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"data":[{"id":"` + strings.Repeat("a", 3000) + `"}]}`))
		}, source.Failed},
		"too large when unpacked": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte(`{"data":[{"id":"` + strings.Repeat("a", 1<<20) + `"}]}`))
			_ = z.Close()
		}, source.Failed},
		"no list": {func(w http.ResponseWriter, _ *http.Request) { write(w, object{"items": []object{}}) }, source.Retry},
		"no id":   {func(w http.ResponseWriter, _ *http.Request) { write(w, object{"data": []object{{"x": 1}}}) }, source.Failed},
	} {
		s := open(t, serve(t, c.handle), "max_body: 2000"+things)
		page, err := s.Backfill(t.Context(), "thing", nil)
		if err == nil {
			t.Errorf("%s: got %v", name, page.Records)
			continue
		}
		_ = kind(t, err, c.kind)
	}
	packed := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write([]byte(whole))
		_ = z.Close()
	})
	want(t, "gzip", all(t, open(t, packed, things[1:]), "thing"), "a")
}

// B7: a byte now and then is no answer.
func TestASlowAnswerEnds(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"data":[`))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	s := open(t, f, "timeout: 100ms"+things)
	_, err := s.Backfill(t.Context(), "thing", nil)
	if e := kind(t, err, source.Retry); !strings.Contains(e.Message, "within 100ms") {
		t.Error(err)
	}
}

// Numbers and texts come through byte for byte.
func TestDataIsKeptAsItIs(t *testing.T) {
	t.Parallel()
	record := `{"id":9007199254740993, "big":123456789012345678901234567890,"price":1.10,"e":1e400,"s":"\u0000\ud800 é"}`
	f := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"data":[` + record + `]}`)) })
	page, err := open(t, f, things[1:]).Backfill(t.Context(), "thing", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := page.Records[0]; string(r.Data) != record || r.ID != "9007199254740993" {
		t.Errorf("id %s, data %s", r.ID, r.Data)
	}
}

func TestRateLimitsPauseTheirBucket(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(90 * time.Second)
	for name, c := range map[string]struct {
		header map[string]string
		status int
		least  time.Duration
	}{
		"seconds":        {map[string]string{"Retry-After": "30"}, 429, 30 * time.Second},
		"a date":         {map[string]string{"Retry-After": at.UTC().Format(http.TimeFormat)}, 429, 85 * time.Second},
		"a reset":        {map[string]string{"X-Left": "0", "X-Reset": "45"}, 403, 45 * time.Second},
		"nothing at all": {nil, 429, 12 * time.Second},
	} {
		f := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(c.status)
		})
		counter := &locksteptest.Counter{Base: http.DefaultTransport}
		s := openWith(t, f, `
limits: {all: {rate: 5, penalty: 12s}, calm: {rate: 1}}
buckets: [all, calm]
errors: [{status: 403, header: {X-Left: "0"}, then: limited, bucket: all, wait: {header: X-Reset}}, {status: 429, then: limited, bucket: all}]`+things,
			rest.Options{Limiter: counter})
		_, err := s.Backfill(t.Context(), "thing", nil)
		_ = kind(t, err, source.RateLimited)
		if p := counter.Penalties(); len(p) != 1 || p[0] < c.least || p[0] > c.least+10*time.Second {
			t.Errorf("%s: paused %v, want one bucket for %s", name, p, c.least)
		}
	}
}
