package console

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

type changeView struct {
	frame
	Change    *client.ChangeAt
	Database  string
	Table     string // empty: of no single table
	Key       string
	CommitLSN string
	At        time.Time
	Size      int
	Gap       string // of a gap: why, in words
	Row       rowDiff
	Consumers []stop
	Others    []stop // consumers that do not select it, at most othersShown
	Left      int    // so many do not
	Senders   []stop // those that it can be replayed to
	Pulled    bool   // a consumer takes changes itself
	Curl      string
	Previous  uint64 // 0: there is none
	Next      uint64
	SameKey   string // address of the tail of the same row
}

// stop is a consumer on the way of a change.
type stop struct {
	client.Whereabouts
	Kind string
}

// changePage shows a change, and its way from the API or the table to each consumer.
func changePage(c *visit) (framed, error) {
	database, seq, err := placeOf(c)
	if err != nil {
		return nil, err
	}
	d, err := c.api.Database(c.ctx, database)
	if err != nil {
		return nil, err
	}
	change, err := c.api.ChangeAt(c.ctx, database, seq)
	if err != nil {
		return nil, err
	}
	m := &change.Metadata
	here := changeAt(database, seq)
	v := &changeView{
		frame: frame{Title: fmt.Sprintf("Change %d", seq), Nav: "stream", Live: here, Every: "5s"}, Change: &change, Database: database,
		Key: strings.Join(m.RecordPKs, ", "), At: m.CommitTime(), Size: len(change.Raw), CommitLSN: lsnText(m.CommitLSN),
	}
	if seq > max(d.FirstSeq, 1) {
		v.Previous = seq - 1
	}
	if seq < d.LastSeq {
		v.Next = seq + 1
	}
	if m.TableName != "" {
		v.Table = m.Table()
	}
	if change.Action == "gap" {
		v.Gap = gapReason(m.Gap)
	}
	if err := v.way(c); err != nil {
		return nil, err
	}
	if c.partly() {
		return v, nil
	}
	v.Row = diffOf(&change.Change)
	v.Curl = c.curl("/v1/databases/" + escape(database) + "/changes/" + strconv.FormatUint(seq, 10))
	if len(m.RecordPKs) > 0 {
		s := choice{Database: database, Tables: tablePattern(m.TableSchema, m.TableName), Key: strings.Join(m.RecordPKs, ","), From: "100"}
		v.SameKey = Prefix + "stream?" + s.query().Encode()
	}
	return v, nil
}

func changeAt(database string, seq uint64) string {
	return databaseAt(database) + "/changes/" + strconv.FormatUint(seq, 10)
}

func placeOf(c *visit) (database string, seq uint64, err error) {
	text := c.r.PathValue("seq")
	if seq, err = strconv.ParseUint(text, 10, 63); err != nil {
		return "", 0, fmt.Errorf("%q is no place in the stream: %w", clip(text, 40), lockstep.ErrNotFound)
	}
	return c.r.PathValue("name"), seq, nil
}

// lsnText writes a place of the write-ahead log as Postgres does.
func lsnText(lsn uint64) string {
	if lsn == 0 {
		return ""
	}
	return fmt.Sprintf("%X/%X", lsn>>32, uint32(lsn&0xffffffff))
}

// othersShown is how many of the consumers that have nothing to do with a change are named.
const othersShown = 50

// way collects where the change came from, and where it is with whom.
func (v *changeView) way(c *visit) error {
	kinds := map[string]string{}
	list, err := c.api.Consumers(c.ctx)
	if err != nil {
		return err
	}
	for i := range list {
		kinds[list[i].ID] = list[i].Kind
	}
	for _, w := range v.Change.Consumers {
		one := stop{Whereabouts: w, Kind: kinds[w.ID]}
		switch {
		case w.State == "not_matching":
			if v.Left++; v.Left <= othersShown {
				v.Others = append(v.Others, one)
			}
			continue
		case one.Kind == "http":
			v.Pulled = true
		case one.Kind != "":
			v.Senders = append(v.Senders, one)
		}
		v.Consumers = append(v.Consumers, one)
	}
	rank := func(s stop) int { return slices.Index([]string{"settled", "ahead", "waiting", "in_flight"}, s.State) }
	slices.SortStableFunc(v.Consumers, func(a, b stop) int {
		// What is none of these, such as blocked, comes first.
		return cmp.Or(cmp.Compare(min(rank(a)+1, 1), min(rank(b)+1, 1)), -cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	return nil
}

// curl is a command that gets what the page shows from the API.
func (c *visit) curl(path string) string {
	scheme := "http://"
	if c.r.TLS != nil || c.r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https://"
	}
	command := "curl "
	if _, err := c.r.Cookie(cookieName); err == nil {
		command += `-H "Authorization: Bearer $LOCKSTEP_TOKEN" `
	}
	return command + "'" + strings.ReplaceAll(scheme+c.r.Host+path, "'", "%27") + "'"
}

// rawChange answers with a change as the API has it, for what a page has no room for.
func rawChange(c *visit) {
	database, seq, err := placeOf(c)
	if err != nil {
		c.fail(err)
		return
	}
	change, err := c.api.ChangeAt(c.ctx, database, seq)
	if err != nil {
		c.fail(err)
		return
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(change.Raw) // a reader that has gone needs no error
}

// replayChange delivers a change to one consumer again.
func replayChange(c *visit) (string, error) {
	_, seq, err := placeOf(c)
	if err != nil {
		return "", err
	}
	to := c.r.PostFormValue("consumer")
	if to == "" {
		return "", fmt.Errorf("choose a consumer: %w", lockstep.ErrInvalid)
	}
	n, err := c.api.Replay(c.ctx, to, client.Replay{Seq: seq})
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "Nothing is delivered again: the consumer does not select this change, or has it on its way already.", nil
	}
	return fmt.Sprintf("Change %d is on its way again.", seq), nil
}

// Tone is how the action looks; its word stands beside it.
func (v *changeView) Tone() string { return toneOf(v.Change.Action) }

// ShortKey is the key as far as a head line has room.
func (v *changeView) ShortKey() string { return keyOf(v.Change.Metadata.RecordPKs) }

// OldAndNew says whether both stand side by side.
func (v *changeView) OldAndNew() bool { return v.Row.Two && !v.Row.Partial }

// Column heads the values when there is one column of them.
func (v *changeView) Column() string {
	switch v.Change.Action {
	case "delete":
		return "Old"
	case "update":
		return "Value now"
	}
	return "New"
}

// RestWords says what the columns are that are not shown at once.
func (v *changeView) RestWords() string {
	if v.OldAndNew() {
		return plural(len(v.Row.Rest), "column", "columns") + " as before"
	}
	return plural(len(v.Row.Rest), "further column", "further columns")
}

// Written says what happened in the database.
func (v *changeView) Written() string {
	switch v.Change.Action {
	case "delete":
		return "Row deleted"
	case "read":
		return "Row read by a backfill"
	case "truncate":
		return "Table emptied"
	case "gap":
		return "Nothing was read here"
	}
	return "Row written"
}

// Ordinal is the change's place in its transaction, from 1st.
func (v *changeView) Ordinal() string {
	n := v.Change.Metadata.CommitIdx + 1
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		suffix = map[uint64]string{1: "st", 2: "nd", 3: "rd"}[n%10]
	}
	return count(n) + cmp.Or(suffix, "th")
}

// Seek is the command that moves a consumer back to the change.
func (v *changeView) Seek() string {
	var pulling []string
	for _, c := range v.Consumers {
		if c.Kind == "http" && len(pulling) < 5 {
			pulling = append(pulling, fmt.Sprintf("lockstep consumer seek %s seq:%d", shellWord(c.Name), v.Change.Metadata.Seq))
		}
	}
	return strings.Join(pulling, "\n")
}

// Words is the state as a person reads it.
func (s stop) Words() string { return strings.ReplaceAll(s.State, "_", " ") }

// Failed is how many attempts to deliver it failed.
func (s stop) Failed() int { return max(s.Attempts, 0) }

// Tells says what the state means.
func (s stop) Tells() string {
	switch {
	case s.Fault != "":
		return "Its filter fails on this change: " + s.Fault + "."
	case s.BeforeStart:
		return "The consumer was made to begin behind it."
	}
	return map[string]string{
		"settled":   "Done with: processed, or given up by a person.",
		"in_flight": "Handed out; until its lease ends nobody else gets it.",
		"waiting":   "It waits for its turn.",
		"blocked":   "Its key waits for a person.",
		"parked":    "It is a dead letter, out of the way of its key.",
		"ahead":     "The consumer has not come so far.",
	}[s.State]
}

// LeftOut says why a consumer does not get the change.
func (s stop) LeftOut() string {
	if s.Matches == "filtered" {
		return "its filter"
	}
	return ""
}

// Notes are the values of a mirrored record that did not fit their columns; empty: none.
func (v *changeView) Notes() string {
	m := v.Change.Mirror
	if m == nil || len(m.Notes) == 0 || string(m.Notes) == "null" {
		return ""
	}
	return brief(m.Notes, 2<<10)
}
