package console

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"lockstep/client"
)

// consumerPages registers pages of consumers.
func (s *Console) consumerPages() {
	s.page("consumers", "consumers", consumers)
	s.page("consumers/{id}", "consumer", consumerMessages)
	s.mux.HandleFunc("GET "+Prefix+"consumers/{id}/next", s.signedIn(nextMessages))
	s.page("consumers/{id}/attempts", "consumer-attempts", consumerAttempts)
	s.page("consumers/{id}/backfills", "consumer-backfills", consumerBackfills)
	s.page("consumers/{id}/settings", "consumer-settings", consumerSettings)
	s.page("consumers/{id}/connect", "consumer-connect", consumerConnect)
	s.deadPages()

	s.action("consumers/{id}/pause", pauseConsumer)
	s.action("consumers/{id}/resume", resumeConsumer)
	s.action("consumers/{id}/test", testConsumer)
	s.action("consumers/{id}/seek", seekConsumer)
	s.action("consumers/{id}/replay", replayConsumer)
	s.action("consumers/{id}/backfills/start", startBackfill)
	s.action("consumers/{id}/backfills/{backfill}/{verb}", steerBackfill)
	s.entry("consumers/{id}/settings", changeConsumer)
	s.entry("consumers/{id}/delete", deleteConsumer)
}

// consumersAPage is how many consumers a page of the list shows.
const consumersAPage = 100

// consumersView is the list of consumers.
type consumersView struct {
	frame
	Rows      []consumerRow
	Charted   bool     // the node keeps a history
	Kinds     []string // of the consumers there are
	Databases []string
	Asked     consumersAsked
	Total     int // consumers there are
	Found     int // of them, those that are asked for
	From, To  int // of these, those on this page
	Older     string
	Newer     string
}

// consumersAsked is what narrows the list.
type consumersAsked struct {
	Query, Kind, State, Database, Sort string
	Page                               int
}

// Narrowed reports whether not every consumer is asked for.
func (a consumersAsked) Narrowed() bool {
	return a.Query != "" || a.Kind != "" || a.State != "" || a.Database != ""
}

// States are what the list can be narrowed to.
func (consumersAsked) States() []string { return []string{"ok", "warn", "error", "paused"} }

func askedConsumers(q url.Values) consumersAsked {
	page, err := strconv.Atoi(q.Get("page"))
	if err != nil || page < 1 {
		page = 1
	}
	return consumersAsked{
		Query: strings.TrimSpace(q.Get("q")), Kind: q.Get("kind"), State: q.Get("state"), Database: q.Get("database"), Sort: q.Get("sort"), Page: page,
	}
}

// address is that of another page of the same list.
func (a consumersAsked) address(page int) string {
	q := url.Values{}
	for name, value := range map[string]string{"q": a.Query, "kind": a.Kind, "state": a.State, "database": a.Database, "sort": a.Sort} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if page > 1 {
		q.Set("page", strconv.Itoa(page))
	}
	return strings.TrimSuffix(Prefix+"consumers?"+q.Encode(), "?")
}

// wants reports whether a consumer is asked for.
func (a consumersAsked) wants(c client.Consumer) bool {
	return (a.Query == "" || strings.Contains(strings.ToLower(c.Name), strings.ToLower(a.Query)) || c.ID == a.Query) &&
		(a.Kind == "" || c.Kind == a.Kind) && (a.State == "" || stateOf(c) == a.State) && (a.Database == "" || c.Database == a.Database)
}

// order compares two consumers of the list.
func (a consumersAsked) order(x, y client.Consumer) int {
	byName := cmp.Or(cmp.Compare(strings.ToLower(x.Name), strings.ToLower(y.Name)), cmp.Compare(x.ID, y.ID))
	switch a.Sort {
	case "pending":
		return cmp.Or(cmp.Compare(y.Stats.Pending, x.Stats.Pending), byName)
	case "dead":
		return cmp.Or(cmp.Compare(y.Stats.Dead, x.Stats.Dead), byName)
	case "state":
		return cmp.Or(cmp.Compare(urgency(y), urgency(x)), byName)
	}
	return byName
}

// stateOf is a consumer's state in one word.
func stateOf(c client.Consumer) string {
	if c.Status == "paused" && c.Health.Status != "error" {
		return "paused"
	}
	return c.Health.Status
}

// consumers shows the list.
func consumers(c *visit) (framed, error) {
	all, err := c.api.Consumers(c.ctx)
	if err != nil {
		return nil, err
	}
	v := &consumersView{
		frame: frame{Title: "Consumers", Nav: "consumers", Live: c.r.URL.RequestURI(), Every: "3s"},
		Asked: askedConsumers(c.r.URL.Query()), Total: len(all),
	}
	if v.Total > manyConsumers {
		v.Every = "5s"
	}
	var found []client.Consumer
	for _, one := range all {
		if !slices.Contains(v.Kinds, one.Kind) {
			v.Kinds = append(v.Kinds, one.Kind)
		}
		if !slices.Contains(v.Databases, one.Database) {
			v.Databases = append(v.Databases, one.Database)
		}
		if v.Asked.wants(one) {
			found = append(found, one)
		}
	}
	slices.Sort(v.Kinds)
	slices.Sort(v.Databases)
	slices.SortFunc(found, v.Asked.order)
	v.Found = len(found)
	last := max(1, (v.Found+consumersAPage-1)/consumersAPage)
	page := min(v.Asked.Page, last)
	first := (page - 1) * consumersAPage
	v.rows(c, found[first:min(first+consumersAPage, v.Found)])
	v.From, v.To = first+1, first+len(v.Rows)
	if page > 1 {
		v.Newer = v.Asked.address(page - 1)
	}
	if page < last {
		v.Older = v.Asked.address(page + 1)
	}
	return v, nil
}

// consumerRow is a consumer in the list.
type consumerRow struct {
	client.Consumer
	State  string
	Reason string // cut to what a row has room for
	Where  string // what it selects
	Rate   rate
	Line   string // how much waited, as the points of a line; empty: not known
}

// manyConsumers is from how many on the page is fetched again less often.
const manyConsumers = 100

// rows makes the rows of a page, with their lines when the node keeps a history.
func (v *consumersView) rows(c *visit, list []client.Consumer) {
	past := map[string]client.ConsumerHistory{}
	ids := make([]string, len(list))
	for i, one := range list {
		ids[i] = one.ID
	}
	if len(ids) == 0 {
		return
	}
	if history, err := c.api.History(c.ctx, client.HistoryQuery{Minutes: 10, Consumers: ids}); err == nil {
		v.Charted = true
		for _, one := range history.Consumers {
			past[one.ID] = one
		}
	}
	for _, one := range list {
		row := consumerRow{Consumer: one, State: stateOf(one), Reason: short(one.Health.Reason, 160), Where: selected(one), Rate: rateOf(one.Stats)}
		if h, ok := past[one.ID]; ok {
			row.Line = spark(h.Pending)
		}
		v.Rows = append(v.Rows, row)
	}
}

// rate is how many changes a consumer settles per second.
type rate struct {
	Known     bool
	PerSecond float64
}

// Text writes the rate with as many digits as say something.
func (r rate) Text() string {
	if r.PerSecond > 0 && r.PerSecond < 10 {
		return strconv.FormatFloat(r.PerSecond, 'f', 1, 64)
	}
	return count(int64(r.PerSecond + 0.5))
}

func rateOf(s client.Stats) rate {
	if s.Rate == nil {
		return rate{}
	}
	return rate{Known: true, PerSecond: *s.Rate}
}

// consumerView is what the pages of one consumer have in common.
type consumerView struct {
	frame
	Consumer client.Consumer
	Tab      string
	Tabs     []consumerTab
	At       string // the address of the consumer's pages
	Sends    bool   // changes are sent to it
	State    string
	Rate     rate
	Reason   string // why the state is so, as a sentence; empty: nothing is wrong
	Remedy   string // what to do about the reason; empty: the reason says it, or all is well
}

type consumerTab struct {
	Name, Title, Address string
	Count                uint64 // 0: none is shown
}

// consumerFrame loads the consumer that an address names.
func consumerFrame(c *visit, tab string) (consumerView, error) {
	k, err := c.api.Consumer(c.ctx, c.r.PathValue("id"))
	if err != nil {
		return consumerView{}, err
	}
	v := consumerView{
		frame:    frame{Title: k.Name, Nav: "consumers", Live: c.r.URL.RequestURI()},
		Consumer: k, Tab: tab, At: Prefix + "consumers/" + url.PathEscape(k.ID), Sends: sends(k.Kind), State: stateOf(k),
	}
	v.Tabs = []consumerTab{{Name: "messages", Title: "Messages", Address: v.At}}
	if v.Sends {
		v.Tabs = append(v.Tabs, consumerTab{Name: "attempts", Title: "Attempts"})
	}
	v.Tabs = append(v.Tabs, consumerTab{Name: "dead", Title: "Dead letters", Count: k.Stats.Dead}, consumerTab{Name: "backfills", Title: "Backfills"},
		consumerTab{Name: "settings", Title: "Settings"}, consumerTab{Name: "connect", Title: "Connect"})
	for i := 1; i < len(v.Tabs); i++ {
		v.Tabs[i].Address = v.At + "/" + v.Tabs[i].Name
	}
	v.Reason, v.Remedy = sentence(k.Health.Reason), v.remedy()
	v.Rate = rateOf(k.Stats)
	return v, nil
}

// remedy says what to do about what the head of the page tells.
func (v *consumerView) remedy() string {
	s := v.Consumer.Stats
	switch {
	case v.Consumer.Destination != nil && v.Consumer.Destination.State == "gone":
		return "Put the destination right, then resume: until then nothing is sent."
	case v.Consumer.Destination != nil && (v.Consumer.Destination.State == "refused" || v.Consumer.Destination.State == "open"):
		return "Attempts show what the destination says. Put it right there or in Settings; Send a test event tries at once."
	case v.State == "paused":
		return "Nothing is handed out. Resume goes on where it stopped."
	case s.Blocked > 0:
		return plural(s.Blocked, "row waits", "rows wait") + " for you: retry or drop the dead letters."
	case s.Dead > 0:
		return "Look at why, put it right, then retry them; or drop what nobody needs."
	}
	return ""
}

// Editable reports whether the definition may be changed and deleted here.
func (v *consumerView) Editable() bool { return v.Consumer.ManagedBy != "file" }

// Where says what the consumer selects, in short.
func (v *consumerView) Where() string { return selected(v.Consumer) }

// selected says what a consumer selects, in short.
func selected(c client.Consumer) string {
	list := c.Tables
	if len(c.Collections) > 0 {
		list = c.Collections
	}
	switch {
	case len(list) == 0:
		return "every table"
	case len(list) > 3:
		return short(strings.Join(list[:3], ", "), 80) + fmt.Sprintf(" and %d more", len(list)-3)
	}
	return short(strings.Join(list, ", "), 90)
}

// sentence writes a reason with a capital and a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	if word, _, _ := strings.Cut(text, " "); !strings.ContainsAny(word, "_./:") { // a name stays as it is
		first, size := utf8.DecodeRuneInString(text)
		text = string(unicode.ToUpper(first)) + text[size:]
	}
	if strings.HasSuffix(text, ".") {
		return text
	}
	return text + "."
}

// short cuts a text for where there is little room.
func short(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}
