package api

import (
	"encoding/json"

	"lockstep/internal/deliver"
)

// Sealer seals what must not lie readable in a database; see package secret.
type Sealer interface {
	Seal(plain []byte, context string) []byte
	Open(sealed []byte, context string) ([]byte, error)
}

// stored is a definition as it lies in the table: readable without its secrets, and
// sealed with them.
type stored struct {
	ConsumerBody
	Sealed      []byte `json:"sealed_settings,omitempty"`
	AppliedFrom string `json:"applied_from,omitempty"`
}

// settingsOf is what a seal is bound to.
func settingsOf(id string) string { return "settings of consumer " + id }

// encode makes what is stored of a definition. Those of the configuration have their
// secrets there.
func (p Postgres) encode(d deliver.Definition) ([]byte, error) {
	s := stored{ConsumerBody: bodyOf(d), AppliedFrom: d.AppliedFrom}
	if len(d.Settings) > 0 && p.Sealer != nil && d.ManagedBy != keptByFile {
		s.Sealed = p.Sealer.Seal(d.Settings, settingsOf(d.ID))
	}
	return json.Marshal(s)
}

// unseal completes a definition that was read. What cannot be opened leaves the
// consumer its place, and says so where it is sent to.
func (p Postgres) unseal(d *deliver.Definition, s stored) {
	d.Shown = s.kindSettings()[d.Kind]
	if len(s.Sealed) == 0 || p.Sealer == nil {
		return
	}
	plain, err := p.Sealer.Open(s.Sealed, settingsOf(d.ID))
	if err != nil {
		plain = unreadable(err)
	}
	d.Settings = plain
}

// unopened stands in the place of settings that could not be opened.
type unopened struct {
	Reason string `json:"settings cannot be opened"`
}

func unreadable(err error) json.RawMessage {
	raw, _ := json.Marshal(unopened{Reason: err.Error()}) // a text always marshals
	return raw
}

// WhyUnopened returns why the stored settings of a consumer could not be opened; empty:
// they could.
func WhyUnopened(settings json.RawMessage) string {
	var u unopened
	_ = json.Unmarshal(settings, &u) // anything else has no reason in it
	return u.Reason
}
