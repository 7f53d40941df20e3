package stripe

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// openapi.json.gz is what testdata/prune.mjs leaves of Stripe's OpenAPI document
// (github.com/stripe/openapi, MIT): the routes below and the schemas they need.
//
//go:embed openapi.json.gz
var files embed.FS

// spec is Stripe's own description of its API: requests are checked by it, and
// objects get their fields from it.
type spec struct {
	Version string                          `json:"version"`
	Paths   map[string]map[string]operation `json:"paths"`
	Schemas map[string]*schema              `json:"schemas"`
}

type operation struct {
	Query  map[string]*schema `json:"query"`
	Body   *schema            `json:"body"`
	Answer *schema            `json:"answer"`
}

type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Enum       []any              `json:"enum"`
	Format     string             `json:"format"`
	MaxLength  int                `json:"maxLength"`
	Nullable   bool               `json:"nullable"`
	Required   []string           `json:"required"`
	Additional json.RawMessage    `json:"additionalProperties"` // a bool or a schema
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	AnyOf      []*schema          `json:"anyOf"`
	Expands    []string           `json:"expands"` // what an id may be expanded to
	Must       bool               `json:"must"`    // of a query parameter: required
}

func loadSpec() (*spec, error) {
	packed, err := files.ReadFile("openapi.json.gz")
	if err != nil {
		return nil, fmt.Errorf("read Stripe's description: %w", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack Stripe's description: %w", err)
	}
	s := &spec{}
	if err := json.NewDecoder(z).Decode(s); err != nil {
		return nil, fmt.Errorf("read Stripe's description: %w", err)
	}
	for _, operations := range s.Paths {
		for _, o := range operations {
			// The SDKs send expand with deletes too, and Stripe takes it.
			if o.Body != nil && o.Body.Properties["expand"] == nil {
				o.Body.Properties["expand"] = &schema{Type: "array", Items: &schema{Type: "string"}}
			}
		}
	}
	return s, nil
}

// resolve follows a reference.
func (s *spec) resolve(x *schema) *schema {
	for x != nil && x.Ref != "" {
		x = s.Schemas[strings.TrimPrefix(x.Ref, "#/components/schemas/")]
	}
	return x
}

// object returns the part of a schema that describes an object, or nil.
func (s *spec) object(x *schema) *schema {
	x = s.resolve(x)
	if x == nil || x.Properties != nil {
		return x
	}
	for _, option := range x.AnyOf {
		if o := s.object(option); o != nil && o.Properties != nil {
			return o
		}
	}
	return nil
}

// fresh returns an object with every field that Stripe always sends: null where that
// is allowed, else the emptiest value of its type.
func (s *spec) fresh(name string) doc {
	d, _ := s.zero(&schema{Ref: name}).(doc)
	d["object"] = name
	return d
}

func (s *spec) zero(x *schema) any {
	x = s.resolve(x)
	switch {
	case x == nil || x.Nullable:
		return nil
	case len(x.Enum) > 0:
		return x.Enum[0]
	case len(x.AnyOf) > 0:
		return s.zero(x.AnyOf[0])
	}
	switch x.Type {
	case "boolean":
		return false
	case "integer", "number":
		return int64(0)
	case "array":
		return []any{}
	case "string":
		return ""
	}
	d := doc{}
	for name, field := range x.Properties {
		if field.Nullable && !includable(name, field) || slices.Contains(x.Required, name) {
			d[name] = s.zero(field)
		}
	}
	return d
}

// includable says whether a field is a list that comes only when it is expanded.
func includable(name string, x *schema) bool {
	return name == "refunds" && x.Properties["has_more"] != nil
}
