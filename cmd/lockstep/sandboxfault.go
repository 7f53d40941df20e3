package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lockstep/sandbox"
)

// addFault gives a fault to the API that it names, or to all of them.
func addFault(apis []simulated, text string) error {
	for _, a := range apis {
		if rest, ok := strings.CutPrefix(text, a.Name()+":"); ok {
			text, apis = rest, []simulated{a}
			break
		}
	}
	fault, err := parseFault(text)
	if err != nil {
		return err
	}
	for _, a := range apis {
		if err := a.faults.Add(fault); err != nil {
			return err
		}
	}
	return nil
}

// parseFault reads a fault: JSON as the control route takes it, or the kind and settings
// with commas between, such as status,status=503,probability=0.1.
func parseFault(text string) (sandbox.Fault, error) {
	var fault sandbox.Fault
	raw := []byte(text)
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		var err error
		if raw, err = faultJSON(text); err != nil {
			return fault, err
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&fault); err != nil {
		return fault, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if d.More() {
		return fault, errors.New("more than one JSON value")
	}
	return fault, nil
}

// faultJSON turns the short form into JSON.
func faultJSON(text string) ([]byte, error) {
	kind, settings, _ := strings.Cut(text, ",")
	fields := map[string]any{"kind": strings.TrimSpace(kind)}
	for setting := range strings.SplitSeq(settings, ",") {
		if setting == "" {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSpace(setting), "=")
		if !ok {
			return nil, fmt.Errorf("%q is no setting: write name=value, or JSON when a value holds a comma", setting)
		}
		fields[name] = faultValue(name, value)
	}
	return json.Marshal(fields)
}

// faultValue is a number or a boolean where it reads like one and the setting is none of
// those that are text.
func faultValue(name, value string) any {
	texts := []string{"kind", "method", "path", "query", "body", "location", "delay"}
	if slices.Contains(texts, name) || !json.Valid([]byte(value)) {
		return value
	}
	return json.RawMessage(value)
}
