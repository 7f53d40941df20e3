package stripe_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// openapi is Stripe's document, read by a validator of its own: the simulator's
// reading of it must not judge itself.
type openapi struct {
	Version string
	Paths   map[string]map[string]struct{ Answer map[string]any }
	Schemas map[string]map[string]any
}

func readOpenAPI(t testing.TB) *openapi {
	t.Helper()
	packed, err := os.ReadFile("openapi.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	o := &openapi{}
	if err := json.NewDecoder(z).Decode(o); err != nil {
		t.Fatal(err)
	}
	return o
}

// validate returns what a value breaks of a schema.
func (o *openapi) validate(at string, schema map[string]any, v any) []string {
	if ref, ok := schema["$ref"].(string); ok {
		schema = o.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
	}
	if v == nil {
		if schema["nullable"] == true {
			return nil
		}
		return []string{at + " is null"}
	}
	if options, ok := schema["anyOf"].([]any); ok && schema["expands"] == nil {
		return o.validateAny(at, options, v)
	}
	if schema["expands"] != nil {
		if _, expanded := v.(map[string]any); expanded {
			return nil
		}
	}
	return o.validateType(at, schema, v)
}

func (o *openapi) validateAny(at string, options []any, v any) (broken []string) {
	for _, option := range options {
		problems := o.validate(at, option.(map[string]any), v)
		if problems == nil {
			return nil
		}
		if broken == nil || len(problems) < len(broken) {
			broken = problems
		}
	}
	return broken
}

func (o *openapi) validateType(at string, schema map[string]any, v any) (broken []string) {
	kind := schema["type"]
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return []string{fmt.Sprintf("%s is %v, not one of %v", at, v, enum)}
	}
	switch v := v.(type) {
	case string:
		if most, ok := schema["maxLength"].(float64); ok && float64(len([]rune(v))) > most {
			broken = append(broken, fmt.Sprintf("%s is longer than %v", at, most))
		}
		return mismatch(at, kind, "string", broken)
	case bool:
		return mismatch(at, kind, "boolean", nil)
	case float64:
		if kind == "number" {
			return nil
		}
		if v != float64(int64(v)) {
			broken = append(broken, fmt.Sprintf("%s is %v, not whole", at, v))
		}
		return mismatch(at, kind, "integer", broken)
	case []any:
		items, _ := schema["items"].(map[string]any)
		for i, element := range v {
			broken = append(broken, o.validate(fmt.Sprintf("%s[%d]", at, i), items, element)...)
		}
		return mismatch(at, kind, "array", broken)
	case map[string]any:
		return mismatch(at, kind, "object", o.validateObject(at, schema, v))
	}
	return []string{fmt.Sprintf("%s: %T", at, v)}
}

func (o *openapi) validateObject(at string, schema map[string]any, v map[string]any) (broken []string) {
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			broken = append(broken, at+"."+name.(string)+" is missing")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		below, ok := properties[name].(map[string]any)
		if ok {
			broken = append(broken, o.validate(at+"."+name, below, v[name])...)
			continue
		}
		if properties != nil && !slices.Contains(unschemed(), name) {
			broken = append(broken, at+"."+name+" is not in the schema")
		}
	}
	return broken
}

// unschemed are fields that Stripe sends and does not describe.
func unschemed() []string { return []string{"type"} }

func mismatch(at string, want any, have string, broken []string) []string {
	if want != have {
		return append(broken, fmt.Sprintf("%s is %s, not %v", at, have, want))
	}
	return broken
}
