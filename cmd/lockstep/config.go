package main

import (
	"encoding/json"
	"errors"

	"lockstep/internal/config"
	"lockstep/internal/connect"
	"lockstep/internal/filter"
	"lockstep/internal/kinds"
	"lockstep/internal/pattern"
)

// configOptions connects the configuration with the packages that own what stands
// in it.
func configOptions(s streams) config.Options {
	return config.Options{
		Lookup:         s.lookup,
		CheckFilter:    func(text string) error { return compiles(filter.Filter, text) },
		CheckTransform: func(text string) error { return compiles(filter.Transform, text) },
		CheckPattern: func(text string) error {
			_, err := pattern.Parse([]string{text})
			return err
		},
		CheckSync: checkSync,
		Kinds:     kinds.Names(),
		CheckKind: checkKind,
	}
}

// checkKind looks at what stands under a kind's name.
func checkKind(kind, settings string) []config.KindFault {
	var faults []config.KindFault
	for _, p := range kinds.Check(kind, json.RawMessage(settings)) {
		faults = append(faults, config.KindFault(p))
	}
	return faults
}

// checkSync looks at a sync with the eyes of its provider.
func checkSync(s config.Sync) config.SyncCheck {
	given := make(map[string]string, len(s.Credential.Properties))
	for name, value := range s.Credential.Properties {
		given[name] = value.Reveal()
	}
	account, err := connect.Resolve(connect.Definition{
		Provider: s.Provider, Spec: s.Spec, SpecFile: s.SpecFile, BaseURL: s.BaseURL, Kind: s.Credential.Kind, Properties: given, Collections: s.Collections,
	})
	if err == nil {
		return config.SyncCheck{Collections: account.Names(), Schema: account.Prefix()}
	}
	problems, ok := errors.AsType[connect.Problems](err)
	if !ok {
		return config.SyncCheck{Faults: []config.SyncFault{{Message: reason(err)}}}
	}
	check := config.SyncCheck{Faults: make([]config.SyncFault, 0, len(problems))}
	for _, p := range problems {
		fault := config.SyncFault{Field: p.Field, Message: p.Message, Remedy: p.Remedy}
		if p.Spec != nil {
			in := config.Problem(*p.Spec)
			fault.In = &in
		}
		check.Faults = append(check.Faults, fault)
	}
	return check
}

func compiles(kind filter.Kind, text string) error {
	_, err := filter.Compile(kind, text)
	return err
}
