package console

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"lockstep/client"
)

// How a field is entered, and what it becomes in the body of a call.
const (
	asText    = "text"    // a text
	asSecret  = "secret"  // a text that pages never show
	asHidden  = "hidden"  // the same of several lines
	asNumber  = "number"  // a whole number
	asDecimal = "decimal" // a number
	asArea    = "area"    // a text of several lines
	asLines   = "lines"   // a list of texts, one on each line or between commas
	asPairs   = "pairs"   // an object of texts, a line "name: value" for each
	asChoice  = "choice"  // one of the options
	asSeveral = "several" // a list, of the options
	asCheck   = "check"   // true
	asOrder   = "order"   // key, none, or a list of columns
	asJSON    = "json"    // any JSON value
)

// field is one input of a form. It is named as in the body of the API's call.
type field struct {
	Name    string // its place in the body, such as webhook.url
	Label   string
	Hint    string
	As      string
	Options []option
	Holder  string // an example, shown while nothing is entered
	Broad   bool   // it takes the whole width
	Value   string // what was entered; of asSeveral with spaces between
	Kept    string // of a secret: what was entered, sealed
	Wrong   []string
}

// Secret reports whether pages never show it.
func (f field) Secret() bool { return f.As == asSecret || f.As == asHidden }

type option struct{ Value, Label string }

// ID is the field's id on the page.
func (f field) ID() string { return "field-" + strings.ReplaceAll(f.Name, ".", "-") }

// Chosen reports whether an option is.
func (f field) Chosen(o option) bool {
	if f.As == asSeveral {
		return slices.Contains(strings.Fields(f.Value), o.Value)
	}
	return f.Value == o.Value
}

// group is a part of a form; one of rare fields is folded away.
type group struct {
	Title  string
	Hint   string
	Rare   bool
	Fields []field
}

// Open reports whether somebody has to see it: something in it was entered or is wrong.
func (g group) Open() bool {
	return slices.ContainsFunc(g.Fields, func(f field) bool {
		return f.Value != "" && (len(f.Options) == 0 || f.As == asCheck) || f.Kept != "" || len(f.Wrong) > 0
	})
}

// form is a form that makes or changes something by one call of the API.
type form struct {
	Groups []group
	Wrong  []string // what is wrong and has no field
}

// fields calls each with every field.
func (f *form) fields(each func(*field)) {
	for g := range f.Groups {
		for i := range f.Groups[g].Fields {
			each(&f.Groups[g].Fields[i])
		}
	}
}

// whole reports whether every field of the form was sent. A browser sends empty ones, but
// not boxes that are not ticked.
func (f *form) whole(values url.Values) bool {
	whole := true
	f.fields(func(one *field) {
		if one.As != asSeveral && one.As != asCheck && !values.Has(one.Name) {
			whole = false
		}
	})
	return whole
}

// keptPrefix comes before the name of a secret that the form holds sealed.
const keptPrefix = "kept."

func sealedAs(name string) string { return "console form " + name }

// take fills in what was entered. Secrets stay in the form, but sealed, so that who
// presses a button twice need not enter them twice.
func (f *form) take(values url.Values, s Sealer) {
	f.fields(func(one *field) {
		entered, ok := values[one.Name]
		if one.As == asSeveral || one.As == asCheck {
			one.Value = strings.Join(entered, " ")
			return
		}
		if ok {
			one.Value = strings.ReplaceAll(entered[0], "\r\n", "\n")
			if one.As != asArea && one.As != asHidden {
				one.Value = strings.TrimSpace(one.Value)
			}
		}
		if !one.Secret() {
			return
		}
		if one.Value != "" {
			one.Kept = base64.RawURLEncoding.EncodeToString(s.Seal([]byte(one.Value), sealedAs(one.Name)))
			return
		}
		sealed, err := base64.RawURLEncoding.DecodeString(values.Get(keptPrefix + one.Name))
		if err != nil || len(sealed) == 0 {
			return
		}
		if plain, err := s.Open(sealed, sealedAs(one.Name)); err == nil {
			one.Value, one.Kept = string(plain), values.Get(keptPrefix+one.Name)
		}
	})
}

// body is what was entered, as the API's JSON. What is empty is left out. A value that
// is none of its field's is noted there, and the body is no good.
func (f *form) body() (map[string]any, bool) {
	out, good := map[string]any{}, true
	f.fields(func(one *field) {
		if one.Value == "" {
			return
		}
		v, wrong := one.value()
		if wrong != "" {
			one.Wrong, good = append(one.Wrong, wrong), false
			return
		}
		put(out, one.Name, v)
	})
	return out, good
}

// put sets a member of members: webhook.url.
func put(into map[string]any, name string, v any) {
	head, rest, nested := strings.Cut(name, ".")
	if !nested {
		into[head] = v
		return
	}
	inner, ok := into[head].(map[string]any)
	if !ok {
		inner = map[string]any{}
		into[head] = inner
	}
	put(inner, rest, v)
}

// value reads what was entered.
func (f field) value() (v any, wrong string) {
	switch f.As {
	case asNumber:
		n, err := strconv.ParseInt(f.Value, 10, 64)
		if err != nil {
			return nil, "this is no whole number"
		}
		return n, ""
	case asDecimal:
		if _, err := strconv.ParseFloat(f.Value, 64); err != nil || !json.Valid([]byte(f.Value)) {
			return nil, "this is no number"
		}
		return json.Number(f.Value), ""
	case asLines:
		return listed(f.Value), ""
	case asPairs:
		return pairs(f.Value)
	case asSeveral:
		return strings.Fields(f.Value), ""
	case asCheck:
		return true, ""
	case asOrder:
		if f.Value == "key" || f.Value == "none" {
			return f.Value, ""
		}
		return listed(f.Value), ""
	case asJSON:
		if !json.Valid([]byte(f.Value)) {
			return nil, "this is no JSON"
		}
		return json.RawMessage(f.Value), ""
	}
	return f.Value, ""
}

// listed parts a text at its lines and commas.
func listed(text string) []string {
	list := []string{}
	for one := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == ',' }) {
		if one = strings.TrimSpace(one); one != "" {
			list = append(list, one)
		}
	}
	return list
}

// pairs reads lines of "name: value".
func pairs(text string) (map[string]string, string) {
	found := map[string]string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, "write each on a line of its own, as name: value"
		}
		found[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return found, ""
}

// blame puts what the API says is wrong to the fields that it is about.
func (f *form) blame(err error) {
	problem, ok := errors.AsType[*client.Problem](err)
	if !ok || len(problem.Errors) == 0 {
		f.Wrong = append(f.Wrong, words(err))
		return
	}
	for _, one := range problem.Errors {
		place := strings.TrimPrefix(strings.TrimPrefix(one.Location, "body"), ".")
		if to := f.find(place); to != nil {
			to.Wrong = append(to.Wrong, one.Message)
			continue
		}
		if place != "" {
			one.Message = place + ": " + one.Message
		}
		f.Wrong = append(f.Wrong, one.Message)
	}
}

// find returns the field that a place in the body belongs to: tables[2] is in tables.
func (f *form) find(place string) *field {
	var found *field
	f.fields(func(one *field) {
		rest, ok := strings.CutPrefix(place, one.Name)
		if ok && (rest == "" || rest[0] == '[' || rest[0] == '.') {
			found = one
		}
	})
	return found
}

// Faulty says how much is wrong, in words; empty: nothing is.
func (f form) Faulty() string {
	n := 0
	f.fields(func(one *field) {
		if len(one.Wrong) > 0 {
			n++
		}
	})
	if n == 0 {
		return ""
	}
	return plural(n, "field needs another look", "fields need another look")
}
