package realtime_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"lockstep"
	"lockstep/internal/realtime"
)

func since(place string) string {
	return `{"event":"*","schema":"public","table":"orders","since":` + place + `}`
}

func (r *rig) fill(n int) {
	r.t.Helper()
	for id := 1; id <= n; id++ {
		r.log.add(r.t, insert(id, ""))
	}
}

// sequences reads changes and returns what their sequences are.
func (c *client) sequences(n int) (all []uint64) {
	c.t.Helper()
	for range n {
		all = append(all, c.change().Data.Sequence)
	}
	return all
}

func TestSinceReplaysWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.fill(10)
	for _, tc := range []struct{ query, entry string }{
		{"", since("7")}, {"", since(`"7"`)}, {"", since(`"2026-11-21T10:00:07.1Z"`)}, {"since=7", everything},
	} {
		c := r.connectTo(tc.query)
		c.follow(tc.entry)
		r.log.add(t, insert(int(r.log.Last().Seq)+1, ""))
		got := c.sequences(int(r.log.Last().Seq) - 7)
		if got[0] != 8 || got[len(got)-1] != r.log.Last().Seq {
			t.Errorf("%s %s: %v; want 8 to %d", tc.query, tc.entry, got, r.log.Last().Seq)
		}
	}
	c := r.connect()
	c.join("realtime:changes", `{"broadcast":{"since":9},"postgres_changes":[`+everything+`]}`)
	c.expect("system")
	if got := c.change(); got.Data.Sequence != 10 {
		t.Errorf("sequence %d; want 10", got.Data.Sequence)
	}
}

func TestEntriesHaveTheirOwnPlaces(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.fill(3)
	c := r.connect()
	ids := c.follow(since("1"), everything, since("2"))
	r.log.add(t, insert(4, ""))
	for _, want := range [][]uint32{{ids[0]}, {ids[0], ids[2]}, {ids[0], ids[1], ids[2]}} {
		if got := c.change(); fmt.Sprint(got.IDs) != fmt.Sprint(want) {
			t.Errorf("sequence %d: ids %v; want %v", got.Data.Sequence, got.IDs, want)
		}
	}
}

func TestAPlaceThatIsGoneIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.fill(10)
	r.log.retain(6)
	for place, want := range map[string]string{"2": "first available one is 6", "99": "not of this log"} {
		c := r.connect()
		c.follow(since(place))
		system := c.expect("system")
		if !strings.Contains(system, want) || !strings.Contains(system, `"status":"error"`) || !strings.Contains(system, `"first_sequence":6`) {
			t.Errorf("since %s: %s; want %s", place, system, want)
		}
		if got := c.sequences(5); got[0] != 6 || got[4] != 10 {
			t.Errorf("since %s: %v; want 6 to 10", place, got)
		}
	}
}

func TestDamageAndGapsAreTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	c.follow(everything)
	r.log.add(t, insert(1, ""))
	c.change()
	// The reader fails before the changes of the next batch, which are lost with it.
	r.log.failNext(&realtime.DamageError{First: 2, Last: 2, Err: errors.New("checksum")})
	if system := c.expect("system"); !strings.Contains(system, "sequences 2 to 2 are damaged") || !strings.Contains(system, `"first_sequence":3`) {
		t.Errorf("system %s", system)
	}
	r.log.add(t, insert(2, ""))
	r.log.add(t, insert(3, ""))
	if got := c.change(); got.Data.Sequence != 3 {
		t.Errorf("sequence %d; want 3", got.Data.Sequence)
	}
	gap := `,"gap":{"state":"start","reason":"slot_lost","from_lsn":1,"to_lsn":2,"missed":null}`
	r.log.add(t, row{table: "everything", action: lockstep.Gap, meta: gap})
	if system := c.expect("system"); !strings.Contains(system, "Changes may be missing: slot_lost") || !strings.Contains(system, `"status":"error"`) || !strings.Contains(system, gap[1:]) {
		t.Errorf("system %s", system)
	}
	r.log.add(t, row{table: "public.others", action: lockstep.Gap, meta: gap}, row{action: lockstep.Gap, meta: strings.Replace(gap, "start", "end", 1)})
	if system := c.expect("system"); !strings.Contains(system, `"status":"ok"`) || !strings.Contains(system, `"sequence":6`) {
		t.Errorf("system %s; want that of the own table", system)
	}
	// An error that may pass is tried again.
	r.log.failNext(errors.New("no connection"))
	r.log.add(t, insert(4, ""))
	if got := c.change(); got.Data.Sequence != 7 {
		t.Errorf("sequence %d; want 7", got.Data.Sequence)
	}
}

func TestARejoinReplacesTheChannel(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c := r.connect()
	c.follow(everything)
	// The second join of the socket has other refs than the first.
	c.write(`["9","9","realtime:changes","phx_join",{"config":{"presence":{"enabled":false},"postgres_changes":[` + everything + `]}}]`)
	if m := c.read(); m.event != "phx_close" || m.joinRef != "1" || m.ref != "1" {
		t.Errorf("got %s; want the end of the first channel", m.raw)
	}
	if m := c.read(); m.event != "phx_reply" || m.ref != "9" {
		t.Errorf("got %s", m.raw)
	}
	c.expect("system")
	// What was meant for the first channel is not for the second.
	c.write(`["1","10","realtime:changes","phx_leave",{}]`)
	r.log.add(t, insert(1, ""))
	if got := c.change(); got.Data.Sequence != 1 {
		t.Errorf("got %+v", got)
	}
	c.write(`["9","11","realtime:changes","phx_leave",{}]`)
	if m := c.read(); m.event != "phx_reply" || m.ref != "11" {
		t.Errorf("got %s", m.raw)
	}
	if m := c.read(); m.event != "phx_close" || m.ref != "9" {
		t.Errorf("got %s", m.raw)
	}
	r.log.add(t, insert(2, ""))
	c.push("phoenix", "heartbeat", "{}")
	if m := c.read(); m.topic != "phoenix" {
		t.Errorf("got %s after leaving", m.raw)
	}
	eventually(t, "the log has no reader when nobody listens", func() bool { return r.log.open() == 0 })
}

func TestOneReaderHoweverManySockets(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	var clients []*client
	for range 20 {
		c := r.connect()
		c.follow(everything)
		clients = append(clients, c)
	}
	r.log.mu.Lock()
	before := r.log.reads
	r.log.mu.Unlock()
	r.fill(5)
	for _, c := range clients {
		c.sequences(5)
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.log.readers != 1 || r.log.reads-before != 5 {
		t.Errorf("%d readers, %d reads; want 1 and 5", r.log.readers, r.log.reads-before)
	}
}

func TestAReplayHoldsNothingUp(t *testing.T) {
	t.Parallel()
	r := newTightRig(t, func(c *realtime.Config) { c.Limits.Replays = 1; c.Limits.QueueBytes = 16 << 10 })
	body := `,"body":"` + strings.Repeat("x", 2_000) + `"`
	for id := range 100 {
		r.log.add(t, insert(id, body))
	}
	// Both read nothing: their replays stop where their outboxes are full.
	stuck := []*client{r.connect(), r.connect()}
	for _, c := range stuck {
		c.follow(since("0"))
	}
	live, behind := r.connect(), r.connect()
	live.follow(everything)
	behind.follow(since("90"))
	r.log.add(t, insert(101, ""))
	if got := live.change(); got.Data.Sequence != 101 {
		t.Errorf("sequence %d; want 101", got.Data.Sequence)
	}
	if got := behind.sequences(11); got[0] != 91 || got[10] != 101 {
		t.Errorf("got %v; want 91 to 101", got)
	}
	// Who begins to read gets all of it: a replay is as slow as its client.
	for _, c := range stuck {
		if got := c.sequences(101); got[0] != 1 || got[100] != 101 {
			t.Errorf("got %d to %d", got[0], got[100])
		}
	}
}

func TestASlowSocketIsClosedAndDelaysNobody(t *testing.T) {
	t.Parallel()
	const limit = 256 << 10
	r := newTightRig(t, func(c *realtime.Config) { c.Limits.QueueBytes = limit })
	slow, quick := r.connect(), r.connect()
	slow.follow(everything)
	quick.follow(everything)
	body := `,"body":"` + strings.Repeat("x", 20_000) + `"`
	most := int64(0)
	for id := 1; id <= 100; id++ {
		r.log.add(t, insert(id, body))
		if got := quick.change().Data.Sequence; got != uint64(id) {
			t.Fatalf("sequence %d; want %d", got, id)
		}
		most = max(most, r.server.Queued())
	}
	if most > 2*limit {
		t.Errorf("%d bytes waited; want at most the limits of both sockets", most)
	}
	if end := slow.closed(); end.Code != websocket.StatusTryAgainLater || !strings.Contains(end.Reason, "too slow") {
		t.Errorf("closed with %v", end)
	}
	if n := r.server.Queued(); n > limit {
		t.Errorf("%d bytes wait after the end", n)
	}
}

func TestAChannelThatWasLeftDoesNotAttach(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if n, err := realtime.AttachedAfterLeaving(r.server); err != nil || n != 0 {
		t.Errorf("the feed has %d channels (%v); want none", n, err)
	}
}
