package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/history"
)

// History tells how the node was in the last hour. *history.History is one.
type History interface {
	Read(q history.Query) history.Series
	// Rate returns how many changes a consumer settles per second.
	Rate(consumer string) (perSecond float64, known bool)
}

// Values are numbers of which some are missing: null in JSON.
type Values []float64

// MarshalJSON writes three digits behind the point, which is what a chart can show.
func (v Values) MarshalJSON() ([]byte, error) {
	buf := make([]byte, 0, 2+6*len(v))
	buf = append(buf, '[')
	for i, value := range v {
		if i > 0 {
			buf = append(buf, ',')
		}
		switch whole := int64(value); {
		case history.Missing(value):
			buf = append(buf, "null"...)
		case float64(whole) == value:
			buf = strconv.AppendInt(buf, whole, 10)
		default:
			buf = strconv.AppendFloat(buf, value, 'f', 3, 64)
		}
	}
	return append(buf, ']'), nil
}

// Schema implements huma.SchemaProvider.
func (Values) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeNumber, Nullable: true}}
}

// HistoryView is a part of the history, made for charts.
type HistoryView struct {
	At        []int64                        `json:"at" doc:"Unix seconds, ten apart, the oldest first. Every list has one value for each; null: there was no sample"`
	Node      *NodeHistoryView               `json:"node,omitempty" doc:"Left out when one database or consumer was asked for"`
	Databases map[string]DatabaseHistoryView `json:"databases" doc:"By name"`
	Consumers map[string]ConsumerHistoryView `json:"consumers" doc:"By name"`
}

// NodeHistoryView is the process.
type NodeHistoryView struct {
	RSS        Values `json:"rss_bytes" doc:"Memory that the process has of the machine"`
	Goroutines Values `json:"goroutines"`
}

// DatabaseHistoryView is one database.
type DatabaseHistoryView struct {
	Changes Values `json:"changes" doc:"Captured per second"`
	Lag     Values `json:"lag_bytes" doc:"Write-ahead log that the stream does not hold yet"`
}

// ConsumerHistoryView is one consumer.
type ConsumerHistoryView struct {
	ID            string `json:"id"`
	Database      string `json:"database"`
	Pending       Values `json:"pending" doc:"Changes that wait"`
	InFlight      Values `json:"in_flight"`
	Delivered     Values `json:"delivered" doc:"Changes handed out or sent per second"`
	Settled       Values `json:"settled" doc:"Changes acked per second"`
	Redelivered   Values `json:"redelivered" doc:"Changes delivered again since the sample before"`
	OldestUnacked Values `json:"oldest_unacked_s" doc:"Age of the oldest change that is not settled, in seconds; 0: none"`
}

type (
	historyInput struct {
		Minutes   int      `query:"minutes" minimum:"1" maximum:"60" default:"60" doc:"How far back"`
		Database  string   `query:"database" doc:"Only this database's series"`
		Consumers []string `query:"consumer,explode" maxItems:"1000" doc:"Only this consumer's series, by id or name; several times for several consumers. Of several, those that have no history are left out"`
	}
	historyOutput struct{ Body HistoryView }
)

func (a *API) historyRoutes() {
	typed(a, Route{Method: http.MethodGet, Path: "/v1/history", Need: auth.NeedRead},
		about{"get-history", "Show how the node was in the last hour, in steps of ten seconds, since its start", "node", 200}, a.getHistory)
}

func (a *API) getHistory(_ context.Context, in *historyInput) (*historyOutput, error) {
	if a.history == nil {
		return nil, fmt.Errorf("this node keeps no history: %w", lockstep.ErrUnavailable)
	}
	if in.Database != "" {
		if _, err := a.database(in.Database); err != nil {
			return nil, err
		}
	}
	in.Consumers = slices.DeleteFunc(in.Consumers, func(name string) bool { return name == "" })
	s := a.history.Read(history.Query{Since: time.Duration(in.Minutes) * time.Minute, Database: in.Database, Consumers: in.Consumers})
	if len(in.Consumers) == 1 && len(s.Consumers) == 0 {
		// One that was deleted still has a history; one that is new has none yet.
		if _, err := a.consumers.Find(in.Consumers[0]); err != nil {
			return nil, err
		}
	}
	return &historyOutput{Body: viewOfHistory(s)}, nil
}

func viewOfHistory(s history.Series) HistoryView {
	out := HistoryView{At: s.At, Databases: map[string]DatabaseHistoryView{}, Consumers: map[string]ConsumerHistoryView{}}
	if s.Node.RSS != nil {
		out.Node = &NodeHistoryView{RSS: s.Node.RSS, Goroutines: s.Node.Goroutines}
	}
	for name, d := range s.Databases {
		out.Databases[name] = DatabaseHistoryView{Changes: d.Changes, Lag: d.Lag}
	}
	for name, c := range s.Consumers {
		out.Consumers[name] = ConsumerHistoryView{
			ID: c.ID, Database: c.Database, Pending: c.Pending, InFlight: c.InFlight, Delivered: c.Delivered,
			Settled: c.Settled, Redelivered: c.Redelivered, OldestUnacked: c.OldestUnacked,
		}
	}
	return out
}

// rateOf is a consumer's rate for its stats; nil: not known yet.
func (a *API) rateOf(consumer string) *float64 {
	if a.history == nil {
		return nil
	}
	rate, known := a.history.Rate(consumer)
	if !known {
		return nil
	}
	rate = rounded(rate)
	return &rate
}
