package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"unicode/utf8"
)

// member is a member of a JSON object; its value is the text that came.
type member struct {
	Name  string
	Value json.RawMessage
}

// membersOf returns the first members of an object in their order, at most so many (0:
// all of them). Nothing, or null, has none.
func membersOf(raw json.RawMessage, most int) ([]member, error) {
	if len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	begin, err := d.Token()
	if err != nil {
		return nil, err
	}
	if begin != json.Delim('{') {
		return nil, errors.New("this is no object")
	}
	var out []member
	for d.More() && (most == 0 || len(out) < most) {
		name, err := d.Token()
		if err != nil {
			return out, err
		}
		var f member
		f.Name, _ = name.(string) // what is no text is an error of Token
		if err := d.Decode(&f.Value); err != nil {
			return out, err
		}
		out = append(out, f)
	}
	return out, nil
}

// brief writes a JSON value in at most about so many bytes of one line, a text with its
// quotes.
func brief(raw json.RawMessage, most int) string {
	text := strings.Join(strings.Fields(string(raw[:min(len(raw), 4*most)])), " ")
	if len(text) <= most && len(raw) <= 4*most {
		return text
	}
	return clip(text, most) + "…"
}

// clip cuts a text to so many bytes, between two letters.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// plainValue writes a JSON value as people read it: a text without its quotes, anything
// else as it is, indented when it has parts.
func plainValue(raw json.RawMessage) string {
	var text string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		if strings.TrimSpace(text) == "" {
			return string(raw) // spaces are seen between quotes
		}
		return text
	}
	if len(raw) > 0 && (raw[0] == '{' || raw[0] == '[') {
		return pretty(raw)
	}
	return string(raw)
}

func escape(segment string) string { return url.PathEscape(segment) }

func queryEscape(value string) string { return url.QueryEscape(value) }
