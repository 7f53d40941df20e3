package stream

import (
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var manyLetters = flag.Int("letters", 0, "how many dead letters TestManyLettersAreMeasured makes; 0: it does not run")

// TestManyLettersAreMeasured tells how long looking at many letters takes, and checks
// what it sees. It fails on no time.
func TestManyLettersAreMeasured(t *testing.T) {
	n := *manyLetters
	if n == 0 {
		t.Skip("say how many: -letters 100000")
	}
	dir := t.TempDir()
	closeServer(t, func() *Server {
		s := openServer(t, Config{Dir: dir})
		openDead(t, s)
		return s
	}())
	took := func(what string, f func()) {
		t.Helper()
		started := time.Now()
		f()
		t.Logf("%-46s %s", what, time.Since(started).Round(10*time.Microsecond))
	}
	took("made, without fsync", func() { fillDead(t, dir, n) })
	for _, how := range []string{"first", "after a clean end"} {
		before := heap()
		var s *Server
		var d *Dead
		took(how+": stream opened", func() { s = openServer(t, Config{Dir: dir}) })
		opened := heap()
		took(how+": letters opened", func() { d = openDead(t, s) })
		took(how+": count of a consumer without letters", func() { wantCount(t, d, consumerB, 0) })
		took(how+": count", func() { wantCount(t, d, consumerA, uint64(n)) })
		t.Logf("%-46s %d MB, of them %d MB the index", how+": heap", (heap()-before)>>20, (heap()-opened)>>20)
		page := func(what string, list func() ([]Letter, uint64, error), first uint64) {
			t.Helper()
			took(what, func() {
				if got, _, err := list(); err != nil || len(got) != 50 || got[0].Seq != first {
					t.Errorf("%s: %d letters, error %v", what, len(got), err)
				}
			})
		}
		for _, again := range []string{"", ", again"} {
			page("page of 50, oldest"+again, func() ([]Letter, uint64, error) { return d.List(t.Context(), consumerA, 0, 50) }, 1)
			page("page of 50, newest"+again, func() ([]Letter, uint64, error) { return d.ListBefore(t.Context(), consumerA, 0, 50) }, uint64(n))
			page("page of 50, middle"+again, func() ([]Letter, uint64, error) { return d.List(t.Context(), consumerA, uint64(n/2), 50) }, uint64(n/2)+1)
		}
		took("one letter", func() {
			if l, err := d.Get(t.Context(), consumerA, uint64(n/3)); err != nil || l.Seq != uint64(n/3) {
				t.Errorf("letter %d, error %v", l.Seq, err)
			}
		})
		took("100 letters put in place of others", func() {
			for i := range 100 {
				put(t, d, consumerA, letter(uint64(i+1)))
			}
		})
		took("100 letters deleted and put again", func() {
			for i := range 100 {
				if err := d.Delete(t.Context(), consumerA, uint64(n/2+i)); err != nil {
					t.Fatal(err)
				}
				put(t, d, consumerA, letter(uint64(n/2+i)))
			}
		})
		took(how+": closed", func() { closeServer(t, s) })
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fillDead gives consumerA the letters 1 to n by a server that does not sync.
func fillDead(t testing.TB, dir string, n int) {
	t.Helper()
	ns, err := server.NewServer(&server.Options{
		ServerName: "lockstep", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, JetStreamMaxStore: unlimitedStore,
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	defer func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	}()
	if !ns.ReadyForConnections(20 * time.Second) {
		t.Fatal("NATS does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		t.Fatal(err)
	}
	base, err := deadBase(consumerA)
	if err != nil {
		t.Fatal(err)
	}
	filler := slices.Repeat([]byte("x"), 500)
	for i := range n {
		l := letter(uint64(i + 1))
		l.Message = json.RawMessage(fmt.Sprintf(`{"seq":%d,"text":%q}`, i+1, filler))
		data, err := encodeLetter(l)
		if err != nil {
			t.Fatal(err)
		}
		m := &nats.Msg{Subject: base + strconv.Itoa(i+1), Header: nats.Header{headerLetterSum: {sum(data)}}, Data: data}
		if _, err := js.PublishMsgAsync(m); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}
