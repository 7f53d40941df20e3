package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"lockstep/client"
)

// newConsumerView is the form of a new consumer.
type newConsumerView struct {
	frame
	Kind      string
	Kinds     []kindOption
	Databases []string
	Tables    []string // of the database, for copying
	More      int      // tables that are not listed
	Form      form
	Trial     *trialView
}

// Words says what the kind does.
func (v *newConsumerView) Words() string {
	for _, k := range v.Kinds {
		if k.Kind == v.Kind {
			return k.Words
		}
	}
	return ""
}

// trialView is what became of real changes.
type trialView struct {
	client.TrialReport
	Database string
	Results  []trialRow
	Filtered int
}

// trialRow is what became of one change.
type trialRow struct {
	client.TrialResult
	State  string          // passed, filtered out or failed
	Before json.RawMessage // the record ahead of the transform; nil: it is the same, or too large
	After  json.RawMessage // the record as workers get it
	Cut    bool            // it is not shown: the page would be too large
	Key    string
}

// trialShown is how many bytes of records a page shows in all.
const trialShown = 2 << 20

func newConsumer(c *visit) (framed, error) {
	v, err := consumerEntry(c, c.r.URL.Query())
	if err != nil {
		return nil, err
	}
	return v, nil
}

// consumerEntry makes the form with what was entered: in an address, or in the form.
func consumerEntry(c *visit, values url.Values) (*newConsumerView, error) {
	names, err := databaseNames(c)
	if err != nil {
		return nil, err
	}
	kind := values.Get("kind")
	if asked, ok := strings.CutPrefix(values.Get("do"), "kind."); ok {
		kind = asked
	}
	v := &newConsumerView{frame: frame{Title: "Create a consumer", Nav: "consumers"}, Kinds: kindOptions(), Databases: names, Kind: "http"}
	if slices.ContainsFunc(v.Kinds, func(k kindOption) bool { return k.Kind == kind }) {
		v.Kind = kind
	}
	v.Form = consumerForm(v.Kind, names)
	v.Form.take(values, c.sealer)
	v.Tables, v.More = tableNames(c, v.database())
	return v, nil
}

// database is the one that is chosen, or the first.
func (v *newConsumerView) database() string {
	if one := v.Form.find("database"); one != nil && slices.Contains(v.Databases, one.Value) {
		return one.Value
	}
	if len(v.Databases) == 0 {
		return ""
	}
	return v.Databases[0]
}

// makeConsumer takes the form: it makes the consumer, tries its selection on real
// changes, or shows the form of another kind.
func makeConsumer(c *visit) {
	v, err := consumerEntry(c, c.r.Form)
	if err != nil {
		c.fail(err)
		return
	}
	switch c.r.PostFormValue("do") {
	case "create":
		made, err := v.create(c)
		if err != nil {
			c.show(http.StatusUnprocessableEntity, "create-consumer", v)
			return
		}
		c.leave(c.w, c.r, notice{Kind: "done", Text: "Consumer " + made.Name + " is there. This is how to connect to it."})
		c.go_(Prefix + "consumers/" + url.PathEscape(made.ID) + "/connect")
		return
	case "try":
		v.try(c)
	}
	c.show(http.StatusOK, "create-consumer", v)
}

// create makes the consumer; what is wrong is noted in the form.
func (v *newConsumerView) create(c *visit) (client.Consumer, error) {
	body, good := v.Form.body()
	if !good {
		return client.Consumer{}, fmt.Errorf("the form holds what is none of its fields'")
	}
	body["kind"] = v.Kind
	made, err := c.api.CreateConsumer(c.ctx, body)
	if err != nil {
		v.Form.blame(err)
	}
	return made, err
}

// try runs filter and transform over the last changes; what is wrong is noted in the
// form.
func (v *newConsumerView) try(c *visit) {
	body, good := v.Form.body()
	if !good {
		return
	}
	var asked client.Trial
	text, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(text, &asked)
	}
	var report client.TrialReport
	if err == nil {
		report, err = c.api.Try(c.ctx, v.database(), asked)
	}
	if err != nil {
		v.Form.blame(err)
		return
	}
	v.Trial = trialOf(report, v.database(), asked.Transform != "")
}

func trialOf(report client.TrialReport, database string, transformed bool) *trialView {
	v := &trialView{TrialReport: report, Database: database, Filtered: report.Matched - report.Passed - report.Failed}
	size := 0
	for _, one := range report.Results {
		row := trialRow{TrialResult: one, State: "filtered out"}
		switch {
		case one.Error != "":
			row.State = "failed"
		case one.Passed:
			row.State = "passed"
		}
		if size += len(one.Message) + len(one.Before); size > trialShown || one.Large > 0 {
			row.Cut = true
			v.Results = append(v.Results, row)
			continue
		}
		row.records(transformed)
		v.Results = append(v.Results, row)
	}
	return v
}

// records takes the records out of the messages.
func (r *trialRow) records(transformed bool) {
	if len(r.TrialResult.Before) > 0 {
		if change, err := client.ParseChange(r.TrialResult.Before); err == nil {
			r.Before, r.Key = change.Record, short(strings.Join(change.Metadata.RecordPKs, ", "), 40)
		}
	}
	if len(r.Message) > 0 {
		if change, err := client.ParseChange(r.Message); err == nil {
			r.After = change.Record
		}
	}
	if !transformed && r.After != nil {
		r.Before = nil // it is the same
	}
}

// Kind is the colour of the state.
func (r trialRow) Kind() string {
	return map[string]string{"passed": "ok", "failed": "error"}[r.State]
}
