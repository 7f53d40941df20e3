package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// wreck is a stopped node whose directory is damaged again and again, each time from
// the same state: rows in the log that are settled, that are not, and changes that
// are not in the log yet.
type wreck struct {
	t      *testing.T
	url    string
	dir    string
	kept   string // the directory as it was
	ledger *ledger
	acked  map[string]map[string]int // consumer → row → how many of its changes were settled
}

// harm is one damage: what was done to which file.
type harm struct {
	what string
	file string // from the data directory
}

func (h harm) String() string { return h.what + " " + h.file }

// wreckNode lets a node work for a while, and stops it.
func wreckNode(t *testing.T, seed uint64) *wreck {
	t.Helper()
	w := &wreck{t: t, url: pgtest.Database(t), dir: workDir(t), ledger: newLedger(), acked: map[string]map[string]int{}}
	execute(t, w.url, tablesSQL)
	n := newNode(t, filepath.Join(w.dir, "node"), setup{url: w.url, consumers: damageConsumers})
	if err := n.launch(); err != nil {
		t.Fatal(err)
	}
	if err := n.ready(t.Context(), recovery); err != nil {
		t.Fatal(err)
	}
	w.write(seed, 6000)
	for _, name := range []string{"every", "even"} {
		w.acked[name] = w.settle(n, name, 3000)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	w.kept = n.data
	pgtest.Exec(t, w.url, "SELECT pg_copy_logical_replication_slot('lockstep_app', 'kept', false, 'pgoutput')")
	w.write(seed+1, 500)
	return w
}

const damageConsumers = "  - " + definition + ", name: every}\n  - " + definition + `, name: even, filter: "record.id % 2 == 0"}` + "\n"

// write commits about that many changes.
func (w *wreck) write(seed uint64, changes int) {
	w.t.Helper()
	until := w.ledger.total() + changes
	// A number of its own: it does not know what the one before has written.
	writer := newWriter(int(seed%1000), rowsEach, w.url, seed, w.ledger, func(context.Context) bool { return w.ledger.total() < until })
	writer.keeps = "plain"
	if err := writer.run(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// settle acks at least that many changes, and leaves gaps: some batches are taken and
// left.
func (w *wreck) settle(n *node, consumer string, changes int) map[string]int {
	w.t.Helper()
	acked := map[string]int{}
	for done := 0; done < changes; {
		got, err := n.api.Next(w.t.Context(), consumer, 50, 10*time.Second)
		if err != nil || len(got.Deliveries) == 0 {
			w.t.Fatalf("nothing came after %d changes: %v", done, err)
		}
		done += len(got.Deliveries)
		if done%7 == 0 {
			continue
		}
		if err := n.api.Ack(w.t.Context(), consumer, tokens(got.Deliveries)...); err != nil {
			w.t.Fatal(err)
		}
		for i := range got.Deliveries {
			acked[keyOf(&got.Deliveries[i].Change)]++
		}
	}
	return acked
}

// outcome is what a damaged node did.
type outcome struct {
	refused  string   // it did not start, and said this
	notices  []string // what it said or handed out about it
	logged   []string // what only its log says
	lost     int      // changes that never came
	repeated int      // changes that came although they were settled
	wrong    []string // changes that are not what was written, or out of order
}

// verdict names the outcome; told says whether somebody was told of what is missing or
// repeated.
func (o *outcome) verdict() (name string, told bool) {
	switch {
	case len(o.wrong) > 0:
		return "wrong change served", false
	case o.refused != "":
		return "refused to start, with the reason", true
	case o.lost == 0 && o.repeated == 0 && len(o.notices) == 0:
		return "nothing lost, nothing repeated", true
	case o.lost == 0 && o.repeated == 0:
		return "nothing lost, nothing repeated, and told all the same", true
	case len(o.notices) > 0 && o.lost > 0:
		return "changes missing, told by a gap or by readiness", true
	case len(o.notices) > 0:
		return "changes repeated, told by a gap or by readiness", true
	case len(o.logged) > 0 && o.lost > 0:
		return "changes missing, told by the log only", false
	case len(o.logged) > 0:
		return "settled changes repeated, told by the log only", false
	}
	return "silent", false
}

// TestDamage damages a node's directory LOCKSTEP_CHAOS_FLIPS times (default 4).
func TestDamage(t *testing.T) {
	t.Parallel()
	seed, flips := uint64(1), number(t, "LOCKSTEP_CHAOS_FLIPS", 4)
	if os.Getenv("LOCKSTEP_CHAOS") != "" {
		seed = seedOf(t)
	}
	w := wreckNode(t, seed)
	count := map[string]int{}
	for i := range flips {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		work := filepath.Join(w.dir, fmt.Sprintf("flip-%d", i))
		h, o := w.try(work, random)
		name, told := o.verdict()
		count[name]++
		text := fmt.Sprintf("damage %d: %s: %s (lost %d, repeated %d)", i, h, name, o.lost, o.repeated)
		if !told {
			t.Errorf("%s\nnotices: %q\nlog: %q\nwrong: %q", text, o.notices, o.logged, o.wrong)
			continue
		}
		t.Logf("%s %.200q %s", text, o.notices, o.refused[strings.LastIndexByte(o.refused, '\n')+1:])
		if err := os.RemoveAll(work); err != nil {
			t.Error(err)
		}
	}
	for name, n := range count {
		t.Logf("%4d  %s", n, name)
	}
	t.Logf("seed %d, %d damages", seed, flips)
}

// try damages a copy and runs a node on it.
func (w *wreck) try(work string, random *rand.Rand) (harm, outcome) {
	w.t.Helper()
	pgtest.Eventually(w.t, time.Minute, "the slot to be free", func() bool {
		return pgtest.Query(w.t, w.url, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'lockstep_app' AND active")[0][0] == "0"
	})
	pgtest.Exec(w.t, w.url, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'lockstep_app'",
		"SELECT pg_copy_logical_replication_slot('kept', 'lockstep_app', false, 'pgoutput')")
	data := filepath.Join(work, "data")
	if err := os.MkdirAll(work, 0o711); err != nil {
		w.t.Fatal(err)
	}
	if err := os.CopyFS(data, os.DirFS(w.kept)); err != nil {
		w.t.Fatal(err)
	}
	h := damage(w.t, data, random)
	n := newNode(w.t, work, setup{data: data, url: w.url, consumers: damageConsumers})
	defer n.kill()
	var o outcome
	if err := n.launch(); err != nil {
		w.t.Fatal(err)
	}
	if err := eventually(w.t.Context(), 30*time.Second, "the node to listen", func() error {
		if n.ended() != "" {
			return nil
		}
		_, err := n.api.Status(w.t.Context())
		return err
	}); err != nil {
		o.refused = err.Error()
		return h, o
	}
	if o.refused = n.ended(); o.refused != "" {
		return h, o
	}
	for _, name := range []string{"every", "even"} {
		w.drain(n, name, &o)
	}
	w.listen(n, &o)
	return h, o
}

// drain takes everything that a consumer is given, and compares.
func (w *wreck) drain(n *node, consumer string, o *outcome) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	came := map[string][]uint64{}
	versions := map[string]int{}
	end := uint64(0)
	for quiet := 0; quiet < 2; {
		got, err := n.api.Next(ctx, consumer, 500, 500*time.Millisecond)
		if err != nil {
			if how := n.ended(); how != "" || ctx.Err() != nil {
				o.notices = append(o.notices, fmt.Sprintf("consumer %s: %v %s", consumer, err, how))
				return
			}
			o.notices = append(o.notices, fmt.Sprintf("consumer %s: %v", consumer, err))
			quiet++
			continue
		}
		if len(got.Deliveries) == 0 {
			seq, standing := w.last(ctx, n)
			if standing && seq == end {
				quiet++
			}
			end = seq
			continue
		}
		before := maps.Clone(versions)
		for i := range got.Deliveries {
			w.judge(&got.Deliveries[i].Change, consumer, came, versions, o)
		}
		err = n.api.Ack(ctx, consumer, tokens(got.Deliveries)...)
		if late, ok := errors.AsType[*client.Problem](err); ok && len(late.Stale) > 0 {
			// On a busy machine the leases have ended: these come again, from the first on.
			forget(versions, before, got.Deliveries, late.Stale)
		} else if err != nil {
			o.notices = append(o.notices, fmt.Sprintf("consumer %s: ack: %v", consumer, err))
		}
	}
	w.compare(consumer, came, o)
}

// forget sets the versions of those keys back whose acks came too late.
func forget(versions, before map[string]int, ds []client.Delivery, late []string) {
	for i := range ds {
		if slices.Contains(late, ds[i].Token) {
			key := keyOf(&ds[i].Change)
			versions[key] = before[key]
		}
	}
}

// last returns where the log ends; false when capture is still to come.
func (w *wreck) last(ctx context.Context, n *node) (seq uint64, standing bool) {
	databases, err := n.api.Databases(ctx)
	if err != nil || len(databases) == 0 {
		return 0, true
	}
	return databases[0].LastSeq, databases[0].Connected || databases[0].Status == "error"
}

// judge looks at one change: is it what was written, and is it its turn?
func (w *wreck) judge(c *client.Change, consumer string, came map[string][]uint64, versions map[string]int, o *outcome) {
	if c.Action == "gap" {
		o.notices = append(o.notices, fmt.Sprintf("consumer %s: gap %s", consumer, c.Metadata.Gap))
		return
	}
	key, version, write, err := content(c)
	if write == deleted {
		// Its record is the row as it was, so that even this change has a version.
		_, version, _, err = row(key, c.Record)
		version++
	}
	history := w.ledger.rows[key]
	switch {
	case err != nil:
		o.wrong = append(o.wrong, err.Error())
	case version > len(history) || history[version-1] != write:
		o.wrong = append(o.wrong, fmt.Sprintf("%s: version %d was never committed as write %d", key, version, write))
	case version <= versions[key]:
		o.wrong = append(o.wrong, fmt.Sprintf("%s: version %d came after %d", key, version, versions[key]))
	}
	if version <= w.acked[consumer][key] {
		o.repeated++
	}
	versions[key] = version
	came[key] = append(came[key], uint64(version))
}

// compare counts what never came.
func (w *wreck) compare(consumer string, came map[string][]uint64, o *outcome) {
	for key, history := range w.ledger.rows {
		if consumer == "even" && !even(key) {
			continue
		}
		for version := w.acked[consumer][key] + 1; version <= len(history); version++ {
			if !slices.Contains(came[key], uint64(version)) {
				o.lost++
			}
		}
	}
}

// listen gathers what the node says about itself.
func (w *wreck) listen(n *node, o *outcome) {
	ctx := w.t.Context()
	if err := n.api.Ready(ctx); err != nil {
		o.notices = append(o.notices, "readiness: "+err.Error())
	}
	if consumers, err := n.api.Consumers(ctx); err == nil {
		for _, c := range consumers {
			if c.Health.Status != "ok" {
				o.notices = append(o.notices, "health of "+c.Name+": "+c.Health.Reason)
			}
		}
	}
	if databases, err := n.api.Databases(ctx); err == nil {
		for _, d := range databases {
			if d.Status != "ok" {
				o.notices = append(o.notices, "status of the database: "+d.Reason)
			}
		}
	}
	n.kill()
	text, err := os.ReadFile(n.output.Name())
	if err != nil {
		w.t.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"WARN"`) || strings.Contains(line, `"ERROR"`) || strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			o.logged = append(o.logged, strings.TrimSpace(line))
		}
	}
}

// damage does harm to one file of the stream: larger files are hit more often, but
// each kind of file is.
func damage(t *testing.T, data string, random *rand.Rand) harm {
	t.Helper()
	kinds := map[string][]string{}
	err := filepath.WalkDir(filepath.Join(data, "stream"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 0 && d.Name() != "lock" {
			kinds[kindOf(path)] = append(kinds[kindOf(path)], path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	order := []string{"log", "log", "log", "log", "state", "state", "index", "other"}
	files := kinds[order[random.IntN(len(order))]]
	if len(files) == 0 {
		files = kinds["log"]
	}
	slices.Sort(files)
	path := files[random.IntN(len(files))]
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h := harm{file: strings.TrimPrefix(path, data+string(filepath.Separator))}
	from := 0
	if kindOf(path) == "state" && random.IntN(2) == 0 {
		from = max(0, len(content)-16<<10) // what is before is mostly superseded
	}
	content, h.what = hurt(content, from, random)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

func kindOf(path string) string {
	switch {
	case strings.HasSuffix(path, "index.db"):
		return "index"
	case strings.HasSuffix(path, ".blk") && strings.Contains(path, "LOCKSTEP_app"):
		return "log"
	case strings.HasSuffix(path, ".blk"):
		return "state"
	}
	return "other"
}

func hurt(content []byte, from int, random *rand.Rand) (hurt []byte, what string) {
	at := from + random.IntN(len(content)-from)
	switch random.IntN(8) {
	case 0:
		return content[:at], fmt.Sprintf("cut to %d of %d bytes:", at, len(content))
	case 1:
		n := min(512, len(content)-at)
		clear(content[at : at+n])
		return content, fmt.Sprintf("%d bytes zeroed at %d of %d:", n, at, len(content))
	case 2:
		n := min(16, len(content)-at)
		for i := range n {
			content[at+i] ^= byte(1 + random.IntN(255))
		}
		return content, fmt.Sprintf("%d bytes changed at %d of %d:", n, at, len(content))
	}
	bit := random.IntN(8)
	content[at] ^= 1 << bit
	return content, fmt.Sprintf("bit %d of byte %d of %d flipped:", bit, at, len(content))
}
