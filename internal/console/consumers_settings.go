package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"lockstep/client"
)

// settingsView shows the definition of a consumer, and changes it.
type settingsView struct {
	consumerView
	Form    form
	Applied bool // it is managed by apply: to change it here needs a word more
	Failed  bool // the form was sent, and something in it is wrong
}

func consumerSettings(c *visit) (framed, error) {
	frame, err := consumerFrame(c, "settings")
	if err != nil {
		return nil, err
	}
	v := &settingsView{consumerView: frame, Form: settingsForm(frame.Consumer.Kind), Applied: frame.Consumer.ManagedBy == "apply"}
	v.Form.show(v.Consumer.Raw)
	return v, nil
}

// show fills in what something is now: the API's JSON.
func (f *form) show(raw json.RawMessage) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var now map[string]any
	if decoder.Decode(&now) != nil {
		return // an empty form says what is wanted, too
	}
	f.fields(func(one *field) {
		if !one.Secret() {
			one.Value = one.shown(lookUp(now, one.Name))
		}
	})
}

func lookUp(members map[string]any, name string) any {
	head, rest, nested := strings.Cut(name, ".")
	if !nested {
		return members[head]
	}
	inner, ok := members[head].(map[string]any)
	if !ok {
		return nil
	}
	return lookUp(inner, rest)
}

// shown is a value of the API as its field shows it.
func (f field) shown(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "true"
		}
		return ""
	case []any:
		texts := make([]string, len(v))
		for i, one := range v {
			texts[i] = fmt.Sprint(one)
		}
		if f.As == asSeveral {
			return strings.Join(texts, " ")
		}
		if f.As == asOrder {
			return strings.Join(texts, ", ")
		}
		return strings.Join(texts, "\n")
	case map[string]any:
		if f.As == asPairs {
			return pairText(v)
		}
	case string:
		return v
	case json.Number:
		return v.String()
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return ""
	}
	return string(text)
}

func pairText(members map[string]any) string {
	var lines []string
	for name, value := range members {
		lines = append(lines, name+": "+fmt.Sprint(value))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// difference is what was entered and is not what is there now: a change for the API.
// What was emptied goes back to its default.
func (f *form) difference(now form) (map[string]any, bool) {
	out, good := map[string]any{}, true
	was := map[string]field{}
	now.fields(func(one *field) { was[one.Name] = *one })
	f.fields(func(one *field) {
		if one.Value == was[one.Name].Value {
			return
		}
		if one.Value == "" {
			put(out, one.Name, one.nothing())
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

// nothing is what an emptied field means in a change. Settings of kinds are removed by
// null; what the API has no empty form of gets its default.
func (f field) nothing() any {
	defaults := map[string]any{
		"order_by": "key", "ack_wait": "30s", "max_attempts": 0, "on_exhausted": "park", "max_in_flight": 1000,
		"backoff.first": "1s", "backoff.max": "10m", "batch.size": 1, "batch.wait": "0s",
	}
	if v, ok := defaults[f.Name]; ok {
		return v
	}
	switch {
	case strings.Contains(f.Name, ".") || f.As == asJSON:
		return nil
	case f.As == asLines || f.As == asSeveral:
		return []string{}
	}
	return ""
}

// changeConsumer takes the form of the settings.
func changeConsumer(c *visit) {
	frame, err := consumerFrame(c, "settings")
	if err != nil {
		c.fail(err)
		return
	}
	v := &settingsView{consumerView: frame, Form: settingsForm(frame.Consumer.Kind), Applied: frame.Consumer.ManagedBy == "apply"}
	now := settingsForm(frame.Consumer.Kind)
	now.show(frame.Consumer.Raw)
	seen, err := time.Parse(time.RFC3339Nano, c.r.PostFormValue("seen"))
	if err != nil || !v.Form.whole(c.r.Form) {
		// What is missing would count as emptied, and go back to its default.
		v.Form.show(frame.Consumer.Raw)
		v.Form.Wrong = append(v.Form.Wrong, "The form did not arrive whole, and nothing was changed. Enter what is to change, and save again.")
		v.refuse(c)
		return
	}
	v.Form.take(c.r.Form, c.sealer)
	change, good := v.Form.difference(now)
	if good && len(change) == 0 {
		c.leave(c.w, c.r, notice{Kind: "done", Text: "Nothing was changed: the settings are as they were."})
		c.go_(v.At + "/settings")
		return
	}
	if good {
		claim := client.Claim{Override: c.r.PostFormValue("override") == "true", Expected: seen}
		if _, err = c.api.With(claim).UpdateConsumer(c.ctx, v.Consumer.ID, change); err == nil {
			c.leave(c.w, c.r, notice{Kind: "done", Text: "Changed: " + strings.Join(slices.Sorted(maps.Keys(change)), ", ") + "."})
			c.go_(v.At + "/settings")
			return
		}
		v.Form.blame(err)
	}
	v.refuse(c)
}

// refuse shows the form again, with what is wrong in it.
func (v *settingsView) refuse(c *visit) {
	v.Failed = true
	v.Live = "" // its address takes forms, and what was typed must stay
	c.show(http.StatusUnprocessableEntity, "consumer-settings", v)
}
