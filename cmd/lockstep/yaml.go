package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// toYAML rewrites JSON as YAML in block style. It goes through YAML's nodes and not
// through values, which keeps the order of keys and the digits of numbers.
func toYAML(value json.RawMessage) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	node, err := yamlNode(decoder)
	if err != nil {
		return nil, fmt.Errorf("write the result as YAML: %w", err)
	}
	text, err := yaml.Dump(node)
	if err != nil {
		return nil, fmt.Errorf("write the result as YAML: %w", err)
	}
	return text, nil
}

func yamlNode(decoder *json.Decoder) (*yaml.Node, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		return yamlNested(decoder, t)
	case string:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: t}, nil
	case json.Number:
		// A number that YAML would read otherwise gets no tag of its own.
		return &yaml.Node{Kind: yaml.ScalarNode, Value: t.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(t)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// yamlNested reads an object or an array; keys come as tokens like values.
func yamlNested(decoder *json.Decoder, open json.Delim) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if open == '[' {
		node = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	}
	for decoder.More() {
		child, err := yamlNode(decoder)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	if len(node.Content) == 0 {
		node.Style = yaml.FlowStyle
	}
	_, err := decoder.Token()
	return node, err
}

// fromYAML reads the YAML (or JSON) of a file that a person wrote into JSON.
func fromYAML(name string, data []byte) (json.RawMessage, error) {
	var value any
	if err := yaml.Load(data, &value); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("read %s: keys must be words: %w", name, err)
	}
	return raw, nil
}
