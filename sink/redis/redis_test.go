package redis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/locksteptest"
	"lockstep/sink"
)

// TestConformance holds both modes to the contract, over TCP.
func TestConformance(t *testing.T) {
	t.Parallel()
	for i, guard := range []Guard{GuardSeq, GuardNone} {
		t.Run("stream, guard "+string(guard), func(t *testing.T) { conformsAsStream(t, newServer(t, 10+i), guard) })
		t.Run("string, guard "+string(guard), func(t *testing.T) { conformsAsStrings(t, newServer(t, 12+i), guard) })
	}
}

func conformsAsStream(t *testing.T, s *server, guard Guard) {
	t.Parallel()
	target := s.target(Config{Guard: guard})
	target.Idempotent = guard == GuardSeq
	target.Arrived = func(t testing.TB) []locksteptest.Arrival {
		var list []locksteptest.Arrival
		for _, body := range s.entries(t, "lockstep:app:public.conformance") {
			var m struct {
				Metadata struct {
					Seq uint64   `json:"seq"`
					PKs []string `json:"record_pks"`
				} `json:"metadata"`
			}
			if err := json.Unmarshal(body, &m); err != nil {
				t.Fatal(err)
			}
			list = append(list, locksteptest.Arrival{Seq: m.Metadata.Seq, Key: strings.Join(m.Metadata.PKs, "|"), Body: body})
		}
		return list
	}
	locksteptest.TestSink(t, target)
}

func conformsAsStrings(t *testing.T, s *server, guard Guard) {
	t.Parallel()
	target := s.target(Config{Mode: String, Guard: guard})
	target.Idempotent = guard == GuardSeq
	target.Keeps = locksteptest.Newest
	target.Expect = func(m sink.Message) json.RawMessage { return m.Record }
	target.Poison = func(m *sink.Message) { m.PKs = json.RawMessage(`[]`) }
	target.Arrived = func(t testing.TB) []locksteptest.Arrival {
		var list []locksteptest.Arrival
		keys, err := s.client.Keys(t.Context(), "app:*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			text := s.get(t, key)
			if text == "" {
				continue // deleted since
			}
			var row struct {
				ID string `json:"id"`
				N  uint64 `json:"n"`
			}
			if err := json.Unmarshal([]byte(text), &row); err != nil {
				t.Fatal(err)
			}
			list = append(list, locksteptest.Arrival{Seq: row.N, Key: row.ID, Body: json.RawMessage(text)})
		}
		return list
	}
	locksteptest.TestSink(t, target)
}

func (s *server) target(c Config) locksteptest.Target {
	target := locksteptest.Target{
		Address: s.address,
		New: func(t testing.TB, address string) sink.Sink {
			c := c
			c.URL = s.url(address)
			r, err := New(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			return r
		},
		Idempotent: true, Secrets: []string{password},
	}
	switch {
	case s.fake != nil:
		trouble := func(text string) func(testing.TB) func() {
			return func(testing.TB) func() {
				s.fake.SetError(text)
				return func() { s.fake.SetError("") }
			}
		}
		target.Trouble = map[sink.Kind]func(testing.TB) func(){
			sink.Retry:   trouble("OOM command not allowed when used memory > 'maxmemory'"),
			sink.Refused: trouble("NOPERM this user has no permissions"),
		}
	case s.own:
		target.Trouble = map[sink.Kind]func(testing.TB) func(){
			sink.Retry:   s.told([]any{"CONFIG", "SET", "maxmemory", "1"}, []any{"CONFIG", "SET", "maxmemory", "0"}),
			sink.Refused: s.told([]any{"ACL", "SETUSER", "default", "-@write", "-@scripting"}, []any{"ACL", "SETUSER", "default", "+@all"}),
		}
	}
	return target
}

// told makes trouble with one command, and ends it with another.
func (s *server) told(begin, end []any) func(testing.TB) func() {
	return func(t testing.TB) func() {
		do := func(command []any) {
			if err := s.client.Do(t.Context(), command...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		do(begin)
		return func() { do(end) }
	}
}

func TestStringsHoldTheNewest(t *testing.T) {
	t.Parallel()
	s := newServer(t, 3)
	r := s.open(t, Config{Mode: String})
	const key = "app:public.orders:7"
	write(t, r, change(1, "7"), change(2, "7"), change(3, "8"))
	write(t, r, change(1, "7"))
	same(t, s.get(t, key), `{"id":"7","n":2}`)
	write(t, r, remove(4, "7"), change(2, "7"))
	same(t, s.get(t, key), "")
	write(t, s.open(t, Config{Mode: String}), change(2, "7"))
	same(t, s.get(t, key), "")
	late := change(3, "7")
	late.Body = bytes.Replace(late.Body, []byte(`"seq"`), []byte(`"late":true,"seq"`), 1)
	write(t, r, late)
	same(t, s.get(t, key), "")
	write(t, r, change(5, "7"))
	same(t, s.get(t, key), `{"id":"7","n":5}`)
	// Seqs are compared exactly, also where Lua's numbers are not exact any more.
	write(t, r, change(math.MaxInt64, "9"), change(math.MaxInt64-1, "9"))
	contains(t, s.get(t, "app:public.orders:9"), fmt.Sprint(int64(math.MaxInt64)))
	if c := r.Counts(); c.Written != 6 || c.Stale != 4 {
		t.Errorf("got %+v, want 6 written and 4 stale", c)
	}
	whole := change(20, "")
	whole.Action = lockstep.Truncate
	write(t, r, whole)
	if c := r.Counts(); c.Ignored != 1 {
		t.Errorf("got %+v, want 1 ignored", c)
	}
}

func TestStringsByConfiguration(t *testing.T) {
	t.Parallel()
	s := newServer(t, 4)
	write(t, s.open(t, Config{Mode: String, Key: "o:{{table}}:{pk}", Value: Message, TTL: time.Hour}), change(1, "a{b}"))
	contains(t, s.get(t, "o:{orders}:a%7Bb%7D"), `"metadata"`)
	if d := s.client.TTL(t.Context(), "o:{orders}:a%7Bb%7D").Val(); d < time.Minute || d > time.Hour {
		t.Errorf("the string lives for %s, want an hour", d)
	}
	two := change(2, "")
	two.PKs = json.RawMessage(`["1","x\"y"]`)
	byFunc := s.open(t, Config{Mode: String, TargetFor: func(m sink.Message) (string, error) {
		if m.Seq == 3 {
			return "", errors.New("secret")
		}
		return "mine", nil
	}})
	write(t, s.open(t, Config{Mode: String}), two)
	write(t, byFunc, change(4, "7"))
	contains(t, s.get(t, "mine")+s.get(t, `app:public.orders:1:x"y`), `"n":2`)
	if text := refused(t, byFunc, sink.Rejected, change(3, "7")); strings.Contains(text, "secret") {
		t.Error(text)
	}
}

// TestKeysThatInterleave: seqs of a stream are not ascending, as keys are written at the
// same time; that must not be taken for a repetition.
func TestKeysThatInterleave(t *testing.T) {
	t.Parallel()
	s := newServer(t, 5)
	r := s.open(t, Config{MaxLen: 1000})
	write(t, r, change(10, "a"))
	write(t, r, change(9, "b"), change(11, "b"))
	write(t, r, change(9, "b"), change(10, "a"), change(11, "b"))
	if n := len(s.entries(t, "lockstep:app:public.orders")); n != 3 {
		t.Errorf("the stream has %d entries, want 3", n)
	}
	late := change(8, "a") // out of the dead letters
	late.Body = bytes.Replace(late.Body, []byte(`"seq"`), []byte(`"late":true,"seq"`), 1)
	write(t, r, late, change(12, "a"))
	write(t, r, late)
	list := s.entries(t, "lockstep:app:public.orders")
	if len(list) != 5 {
		t.Fatalf("the stream has %d entries, want 5", len(list))
	}
	contains(t, string(list[3]), `"late":true`)
}

// TestNothingOvertakes: a change is not applied when the one before it in the call was
// not.
func TestNothingOvertakes(t *testing.T) {
	t.Parallel()
	s := newServer(t, 6)
	r := s.open(t, Config{Stream: "{action}"})
	if err := s.client.Set(t.Context(), "update", "no stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	_, err := r.Write(t.Context(), []sink.Message{change(1, "a"), change(2, "a")})
	var partial *sink.PartialError
	if !errors.As(err, &partial) || len(partial.Failed) != 2 {
		t.Fatalf("got %v", err)
	}
	contains(t, partial.Failed[0].Err.Error(), "WRONGTYPE")
	contains(t, partial.Failed[1].Err.Error(), "an earlier change of its key")
	if err := s.client.Del(t.Context(), "update").Err(); err != nil {
		t.Fatal(err)
	}
	write(t, r, change(1, "a"), change(2, "a"))
	if n := len(s.entries(t, "update")); n != 2 {
		t.Errorf("the stream has %d entries, want 2", n)
	}
}

func TestAServerThatForgetsScripts(t *testing.T) {
	t.Parallel()
	s := newServer(t, 7)
	r := s.open(t, Config{})
	for seq := range uint64(3) {
		if err := s.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		write(t, r, change(3*seq+1, "a"), change(3*seq+2, "a"), change(3*seq+3, "b"))
	}
	if n := len(s.entries(t, "lockstep:app:public.orders")); n != 9 {
		t.Errorf("the stream has %d entries, want 9", n)
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t, 8)
	nobody := open(t, Config{URL: "redis://:" + password + "@127.0.0.1:1", Timeout: time.Second})
	contains(t, refused(t, nobody, sink.Retry, change(1, "7")), "cannot be reached")
	if s.user != "" {
		contains(t, refused(t, open(t, Config{URL: "redis://:wrong@" + s.address}), sink.Refused, change(1, "7")), "does not let us in")
		contains(t, refused(t, open(t, Config{URL: "redis://" + s.address}), sink.Refused, change(1, "7")), "does not let us in")
	}
	p := locksteptest.NewProxy(t, s.address)
	r := open(t, Config{URL: s.url(p.Address())})
	write(t, r, change(1, "7"))
	p.Stall()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := r.Write(ctx, []sink.Message{change(2, "7")}); !errors.Is(err, context.Canceled) && !strings.Contains(fmt.Sprint(err), "interrupted") {
		t.Errorf("got %v", err)
	}
	p.Heal()
	write(t, r, change(2, "7"))
}

func TestConfigurationsThatAreWrong(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"url: say where":       {},
		"url: cannot be read":  {URL: "redis://:hunter2@h:x/0"},
		"several hosts need":   {URL: "redis://a:1,b:2/0"},
		"mode: \"x\"":          {URL: "redis://h", Mode: "x"},
		"value: \"x\"":         {URL: "redis://h", Value: "x"},
		"must not be negative": {URL: "redis://h", MaxLen: -1},
		"key: {pk} must be":    {URL: "redis://h", Mode: String, Key: "one"},
		"choose one":           {URL: "redis://h", Cluster: true, Master: "m"},
	} {
		_, err := New(t.Context(), c)
		if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := New(t.Context(), Config{URL: "rediss://u:p@a:1,b:2", Cluster: true}); err != nil {
		t.Error(err)
	}
}
