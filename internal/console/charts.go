package console

import (
	"cmp"
	"slices"

	"lockstep/client"
)

// chart is what a page's script draws. Each series has a value for each of At.
type chart struct {
	At     []int64  `json:"at"` // Unix seconds
	Series []series `json:"series"`
	Unit   string   `json:"unit"` // bytes, or a word after the number
}

type series struct {
	Label  string     `json:"label"`
	Values []*float64 `json:"values"` // null: there was no sample
}

// lines is how many series a chart tells apart.
const lines = 6

// charts registers what the pages' charts are drawn from. A chart asks for the series
// that it shows only: the history of hundreds of consumers is megabytes.
func (s *Console) charts() {
	s.chart("charts/changes", func(c *visit, out *chart) error {
		return c.databaseChart(out, func(h client.DatabaseHistory) []*float64 { return h.Changes })
	})
	s.chart("charts/lag", func(c *visit, out *chart) error {
		out.Unit = "bytes"
		return c.databaseChart(out, func(h client.DatabaseHistory) []*float64 { return h.Lag })
	})
	s.chart("charts/pending", (*visit).pendingChart)
	s.chart("charts/consumer/{id}", (*visit).consumerChart)
}

func (s *Console) chart(address string, fill func(*visit, *chart) error) {
	s.mux.HandleFunc("GET "+Prefix+address, s.signedIn(func(c *visit) {
		out := chart{At: []int64{}, Series: []series{}}
		if err := fill(c, &out); err != nil {
			c.w.WriteHeader(statusOf(err)) // the script leaves the chart as it is
			return
		}
		out.begin()
		c.json(out)
	}))
}

// databaseChart is one line per database: ?database= names one, else the first ones.
func (c *visit) databaseChart(out *chart, pick func(client.DatabaseHistory) []*float64) error {
	names := c.r.URL.Query()["database"]
	if len(names) == 0 {
		list, err := c.api.Databases(c.ctx)
		if err != nil {
			return err
		}
		for _, d := range list {
			names = append(names, d.Name)
		}
	}
	for _, name := range names[:min(len(names), lines)] {
		h, err := c.api.History(c.ctx, client.HistoryQuery{Database: name})
		if err != nil {
			return err
		}
		if d, ok := h.Databases[name]; ok {
			out.add(h.At, name, pick(d))
		}
	}
	return nil
}

// pendingChart is one line for each of the consumers that have the most before them.
func (c *visit) pendingChart(out *chart) error {
	node, err := c.api.Status(c.ctx)
	if err != nil {
		return err
	}
	list := node.Consumers
	slices.SortStableFunc(list, func(a, b client.Consumer) int {
		return cmp.Or(cmp.Compare(b.Stats.Pending, a.Stats.Pending), cmp.Compare(a.Name, b.Name))
	})
	for _, k := range list[:min(len(list), lines)] {
		h, err := c.api.History(c.ctx, client.HistoryQuery{Consumer: k.ID})
		if err != nil {
			return err
		}
		for name, one := range h.Consumers {
			out.add(h.At, name, one.Pending)
		}
	}
	return nil
}

// consumerChart shows what a consumer has before it, or with ?of=rate what it does.
func (c *visit) consumerChart(out *chart) error {
	h, err := c.api.History(c.ctx, client.HistoryQuery{Consumer: c.r.PathValue("id")})
	if err != nil {
		return err
	}
	for _, one := range h.Consumers {
		if c.r.URL.Query().Get("of") == "rate" {
			out.Unit = "/s"
			out.add(h.At, "handed out", one.Delivered)
			out.add(h.At, "acked", one.Settled)
			return nil
		}
		out.add(h.At, "waiting", one.Pending)
		out.add(h.At, "in flight", one.InFlight)
	}
	return nil
}

// add adds a line. All charts of one answer begin with the same sample but for one that
// was taken between two calls: the shorter one counts.
func (ch *chart) add(at []int64, label string, values []*float64) {
	if len(ch.Series) == 0 {
		ch.At = at
	}
	n := min(len(ch.At), len(values))
	ch.At = ch.At[:n]
	for i := range ch.Series {
		ch.Series[i].Values = ch.Series[i].Values[:n]
	}
	ch.Series = append(ch.Series, series{Label: label, Values: values[:n]})
}

// leastShown is how many samples a chart shows, even when most of them are missing: five
// minutes.
const leastShown = 30

// begin leaves out what was before the first sample, so that a young node's chart is no
// empty hour.
func (ch *chart) begin() {
	first := len(ch.At)
	for _, s := range ch.Series {
		if i := slices.IndexFunc(s.Values, func(v *float64) bool { return v != nil }); i >= 0 {
			first = min(first, i)
		}
	}
	first = max(0, min(first, len(ch.At)-leastShown))
	ch.At = ch.At[first:]
	for i := range ch.Series {
		ch.Series[i].Values = ch.Series[i].Values[first:]
	}
}
