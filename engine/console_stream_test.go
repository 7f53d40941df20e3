package engine_test

import (
	"html"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

var (
	seqPattern  = regexp.MustCompile(`<td class="n"><a href="/console/databases/app/changes/(\d+)">`)
	pagePattern = regexp.MustCompile(`<a class="button plain" href="/console/([^"]*)">(Older|Newer)</a>`)
)

// streamPages follows the links of a direction from a page of the stream to its end, and
// returns the seqs of each page.
func (n *node) streamPages(path, direction string) (pages [][]string) {
	n.t.Helper()
	for path != "" {
		page := n.consolePage(path)
		var seqs []string
		for _, m := range seqPattern.FindAllStringSubmatch(page, -1) {
			seqs = append(seqs, m[1])
		}
		pages, path = append(pages, seqs), ""
		for _, m := range pagePattern.FindAllStringSubmatch(page, -1) {
			if m[2] == direction {
				path = html.UnescapeString(m[1])
			}
		}
		if len(pages) > 50 {
			n.t.Fatal("the pages have no end")
		}
	}
	return pages
}

// The stream is read page by page without scripts: each change that the selection wants
// is on one page, once, whichever way one goes.
func TestTheStreamIsReadPageByPage(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, note text)`)
	n := newNode(t, url, "  []\n")
	n.slot("console_stream")
	n.start()
	pgtest.Exec(t, url, `INSERT INTO orders SELECT g, 'n' || g % 3 FROM generate_series(1, 730) g`, `UPDATE orders SET note = 'other' WHERE id = 5`)
	deadline := time.Now().Add(30 * time.Second)
	for db, err := n.api.Database(t.Context(), "app"); err != nil || db.LastSeq < 731; db, err = n.api.Database(t.Context(), "app") {
		if time.Now().After(deadline) {
			t.Fatalf("731 changes were not captured: %+v, %v", db, err)
		}
		pgtest.Exec(t, url, `SELECT pg_sleep(0.05)`)
	}
	for name, c := range map[string]struct {
		query string
		want  int
	}{
		"everything":    {"", 731},
		"an expression": {"&filter=" + "record.note+%3D%3D+%22n1%22", 244},
		"an action":     {"&action=update", 1},
		"a key":         {"&tables=public.*&key=5", 2},
		"no table":      {"&tables=public.none", 0},
	} {
		t.Run(name, func(t *testing.T) {
			back := slices.Concat(n.streamPages("stream?database=app"+c.query, "Older")...)
			ahead := n.streamPages("stream?database=app&after=1"+c.query, "Newer")
			slices.Reverse(ahead) // each page has its newest first
			if len(back) != c.want || len(slices.Compact(slices.Sorted(slices.Values(back)))) != c.want {
				t.Errorf("%d changes are on the pages, want %d, each once", len(back), c.want)
			}
			behind := slices.DeleteFunc(back, func(seq string) bool { return seq == "1" })
			if !slices.Equal(slices.Concat(ahead...), behind) {
				t.Errorf("forwards there are other changes than backwards: %v, %v", ahead, behind)
			}
		})
	}
	if page := n.consolePage("stream?database=app&filter=record.note+%3D%3D"); !strings.Contains(page, `id="wrong-filter"`) || strings.Contains(page, "sse-connect") {
		t.Error("what is wrong with an expression is not told at its field")
	}
}

// Rows that a backfill reads for one consumer are no news on the stream's page: what was
// captured before them is, at once.
func TestTheStreamShowsWhatIsBeforeABackfill(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, note text)`)
	n := newNode(t, url, "  - {name: late, tables: [public.orders]}\n")
	n.slot("console_backfill")
	n.start()
	pgtest.Exec(t, url, `INSERT INTO orders SELECT g, 'n' FROM generate_series(1, 450) g`)
	begun, err := n.api.StartBackfill(t.Context(), "late", client.BackfillRequest{})
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, time.Minute, "the backfill to end", func() bool {
		b, err := n.api.Backfill(t.Context(), begun.ID)
		db, failed := n.api.Database(t.Context(), "app")
		return err == nil && failed == nil && b.Ended() && db.LastSeq >= 900
	})
	back := slices.Concat(n.streamPages("stream?database=app", "Older")...)
	if len(back) != 450 || back[0] != "450" || back[449] != "1" {
		t.Errorf("%d changes are on the pages, want 450: %v", len(back), back)
	}
	ahead := slices.Concat(n.streamPages("stream?database=app&after=1", "Newer")...)
	if len(ahead) != 449 {
		t.Errorf("%d changes are on the pages forwards, want 449: %v", len(ahead), ahead)
	}
	if page := n.consolePage("stream?database=app"); strings.Contains(page, "There was time for") {
		t.Error("the page waited for what never comes")
	}
}
