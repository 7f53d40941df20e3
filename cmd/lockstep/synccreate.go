package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"lockstep"
)

type syncCreateCmd struct {
	Name        string            `arg:"" optional:"" help:"Its name. Default: made of the provider."`
	File        string            `short:"f" placeholder:"FILE" help:"YAML of one sync as in lockstep.yml; - is standard input. $${NAME} is taken from the environment. Flags go before it."`
	Provider    string            `placeholder:"NAME" help:"stripe, github or rest."`
	Spec        string            `placeholder:"FILE" help:"Of provider rest: the spec."`
	BaseURL     string            `name:"base-url" placeholder:"URL" help:"A sandbox or a gateway instead of the API."`
	Kind        string            `placeholder:"KIND" help:"The credential's kind, such as stripe_key."`
	Property    map[string]string `placeholder:"NAME=VALUE" mapsep:"none" help:"A property of the credential; NAME=@FILE reads it from a file, where others do not see it."`
	Collections []string          `placeholder:"NAME" help:"Such as stripe:customer. Default: all."`
	Database    string            `placeholder:"NAME" help:"Where the tables lie. Default: the only one."`
	Schema      string            `placeholder:"NAME" help:"Default: the provider's name."`
	Every       time.Duration     `placeholder:"5s" help:"Pause between two polls."`
}

// Run makes a sync from the file and the flags.
func (x *syncCreateCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	definition, err := x.definition(s)
	if err != nil {
		return err
	}
	remote, err := c.client()
	if err != nil {
		return err
	}
	made, err := remote.CreateSync(ctx, definition)
	if err != nil {
		return fmt.Errorf("create sync %s: %w", x.Name, err)
	}
	if p.format != "table" {
		return p.raw(made.Raw)
	}
	if p.quiet {
		_, err = fmt.Fprintln(p.out, made.Name)
		return err
	}
	if _, err = fmt.Fprintf(p.out, "created %s (%s)\n", printable(made.Name), made.ID); err != nil {
		return err
	}
	p.note("lockstep sync show %s --watch shows how far it is", printable(made.Name))
	return nil
}

// definition returns the file's fields with those of the flags put over them.
func (x *syncCreateCmd) definition(s streams) (map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	if x.File != "" {
		if err := readDefinition(s, x.File, &fields); err != nil {
			return nil, err
		}
		if err := expandAll(fields, s.lookup); err != nil {
			return nil, fmt.Errorf("read %s: %w: %w", x.File, err, lockstep.ErrInvalid)
		}
	}
	set := func(name string, value any, given bool) {
		if given {
			// Texts, lists and maps of texts always marshal.
			fields[name], _ = json.Marshal(value)
		}
	}
	credential, err := x.credential(s)
	if err != nil {
		return nil, err
	}
	set("name", x.Name, x.Name != "")
	set("provider", x.Provider, x.Provider != "")
	set("base_url", x.BaseURL, x.BaseURL != "")
	set("credential", credential, x.Kind != "" || len(x.Property) > 0)
	set("collections", x.Collections, len(x.Collections) > 0)
	set("database", x.Database, x.Database != "")
	set("schema", x.Schema, x.Schema != "")
	set("every", x.Every.String(), x.Every != 0)
	if fields["provider"] == nil {
		return nil, usageError{errors.New("which API? give --provider with stripe, github or rest")}
	}
	_ = json.Unmarshal(fields["name"], &x.Name)
	return fields, x.spec(s, fields)
}

func (x *syncCreateCmd) credential(s streams) (map[string]any, error) {
	properties := map[string]string{}
	for name, value := range x.Property {
		if file, ok := strings.CutPrefix(value, "@"); ok {
			data, err := readInput(s, file)
			if err != nil {
				return nil, fmt.Errorf("read the property %s: %w: %w", name, err, lockstep.ErrInvalid)
			}
			value = strings.TrimRight(string(data), "\r\n")
		}
		properties[name] = value
	}
	out := map[string]any{"properties": properties}
	if x.Kind != "" {
		out["kind"] = x.Kind
	}
	return out, nil
}

// spec puts the text of a spec in the place of its file's name: the server reads no
// files for callers.
func (x *syncCreateCmd) spec(s streams, fields map[string]json.RawMessage) error {
	name := x.Spec
	if name == "" {
		if err := json.Unmarshal(fields["spec"], &name); err != nil || strings.Contains(name, "\n") || name == "" {
			return nil
		}
		if x.File != "" && x.File != "-" && !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(x.File), name)
		}
	}
	text, err := readInput(s, name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("there is no file %s", name)
		}
		return fmt.Errorf("read the spec: %w: %w", err, lockstep.ErrInvalid)
	}
	fields["spec"], err = json.Marshal(string(text))
	return err
}

var variables = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}`)

// expandAll replaces ${NAME} and ${NAME:-default} in every text of the fields, as in
// lockstep.yml; $${ stands for ${.
func expandAll(fields map[string]json.RawMessage, lookup func(string) (string, bool)) error {
	for name, raw := range fields {
		if !strings.Contains(string(raw), "${") {
			continue // as it was written, numbers too
		}
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			return err
		}
		value, err := expand(value, lookup)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if fields[name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	return nil
}

func expand(value any, lookup func(string) (string, bool)) (any, error) {
	var err error
	switch v := value.(type) {
	case string:
		expanded := variables.ReplaceAllStringFunc(v, func(text string) string {
			if strings.HasPrefix(text, "$$") {
				return text[1:]
			}
			m := variables.FindStringSubmatch(text)
			found, set := lookup(m[1])
			if found == "" && m[2] != "" {
				return m[3]
			}
			if !set {
				err = fmt.Errorf("the variable %s is not set", m[1])
			}
			return found
		})
		return expanded, err
	case []any:
		for i := range v {
			if v[i], err = expand(v[i], lookup); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range v {
			if v[key], err = expand(v[key], lookup); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}
