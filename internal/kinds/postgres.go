package kinds

import (
	"context"

	"lockstep/internal/pump"
	"lockstep/sink/postgres"
)

// postgresSettings are the keys of postgres; package sink/postgres explains them.
type postgresSettings struct {
	URL            text            `json:"url" secret:"url"`
	Form           text            `json:"form"`
	Table          text            `json:"table"`
	Key            []text          `json:"key"`
	Rename         map[string]text `json:"rename"`
	Columns        map[string]text `json:"columns"`
	Unknown        text            `json:"unknown"`
	Create         truth           `json:"create"`
	Guard          text            `json:"guard"`
	SeqColumn      text            `json:"seq_column"`
	Positions      text            `json:"positions"`
	KeepDeleted    span            `json:"keep_deleted"`
	SoftDelete     text            `json:"soft_delete"`
	Truncate       truth           `json:"truncate"`
	Connections    count           `json:"connections"`
	ConnectTimeout span            `json:"connect_timeout"`
	Settings       map[string]text `json:"settings"`
}

// postgresBatch is how many changes go into one transaction where nobody says: with
// one each, the round trip and the commit are all that costs.
const postgresBatch = 500

func openPostgres(_ Target, settings any) (pump.Opened, error) {
	s := settings.(*postgresSettings)
	if s.URL == "" {
		return pump.Opened{}, wrong("url", "say which database: postgres://user:password@host/database")
	}
	p, err := postgres.New(context.Background(), postgres.Config{
		URL: string(s.URL), Form: postgres.Form(s.Form), Table: string(s.Table), Key: texts(s.Key), Rename: textsByName(s.Rename), Columns: textsByName(s.Columns),
		Unknown: postgres.Unknown(s.Unknown), Create: bool(s.Create), Guard: postgres.Guard(s.Guard), SeqColumn: string(s.SeqColumn), Positions: string(s.Positions),
		KeepDeleted: s.KeepDeleted.duration(), SoftDelete: string(s.SoftDelete), Truncate: bool(s.Truncate), Connections: int(s.Connections),
		ConnectTimeout: s.ConnectTimeout.duration(), Settings: textsByName(s.Settings),
	})
	if err != nil {
		return pump.Opened{}, err
	}
	concurrency := int(s.Connections)
	if concurrency == 0 {
		concurrency = postgres.DefaultConnections
	}
	return pump.Opened{Sink: p, Concurrency: concurrency, Batch: postgresBatch}, nil
}

func texts(list []text) []string {
	var out []string
	for _, t := range list {
		out = append(out, string(t))
	}
	return out
}

func textsByName(list map[string]text) map[string]string {
	if len(list) == 0 {
		return nil
	}
	out := make(map[string]string, len(list))
	for name, t := range list {
		out[name] = string(t)
	}
	return out
}
