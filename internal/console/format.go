package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// functions are what templates write values with.
func (s *Console) functions() template.FuncMap {
	return template.FuncMap{
		"count":    count,
		"bytes":    byteText,
		"ago":      func(t any) string { return ago(s.now(), t) },
		"when":     when,
		"iso":      iso,
		"span":     spanText,
		"pretty":   pretty,
		"path":     url.PathEscape,
		"query":    queryText,
		"join":     strings.Join,
		"plural":   plural,
		"word":     pillWord,
		"dict":     dict,
		"sentence": sentence,
		"spark":    spark,
		"tall":     tall,
	}
}

// queryText escapes a text for the query of an address. A plain string would be escaped
// there once more.
func queryText(text string) template.URL {
	return template.URL(url.QueryEscape(text)) //nolint:gosec // nothing but letters, digits and escapes
}

// tall says whether a value may need to be scrolled in its cell: then the keyboard has to
// reach it.
func tall(text string) bool { return len(text) > 150 || strings.Count(text, "\n") > 5 }

// count writes an integer with its digits in groups: 1,234,567.
func count(n any) string {
	text := fmt.Sprint(n)
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	if strings.Trim(text, "0123456789") != "" {
		return sign + text
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// byteText writes a number of bytes with three digits or so: 12.3 MB.
func byteText(n any) string {
	v, err := strconv.ParseFloat(fmt.Sprint(n), 64)
	if err != nil {
		return fmt.Sprint(n)
	}
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for ; (v >= 1000 || v <= -1000) && i < len(units)-1; i++ {
		v /= 1000
	}
	if i == 0 || v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64) + " " + units[i]
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + units[i]
}

// timeOf takes a time or a pointer to one; zero for none.
func timeOf(v any) time.Time {
	switch t := v.(type) {
	case time.Time:
		return t
	case *time.Time:
		if t != nil {
			return *t
		}
	}
	return time.Time{}
}

// ago says how long ago, or in how long, a time is.
func ago(now time.Time, v any) string {
	t := timeOf(v)
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	switch {
	case d < -time.Second:
		return "in " + spanText(-d)
	case d < time.Second:
		return "now"
	}
	return spanText(d) + " ago"
}

// when writes a time for people, in UTC.
func when(v any) string {
	t := timeOf(v)
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// iso writes a time for machines; empty for none.
func iso(v any) string {
	t := timeOf(v)
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// spanText writes a length of time with its largest unit, or two of them: 3 min 20 s.
func spanText(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatInt(int64(d.Seconds()), 10) + " s"
	case d < time.Hour:
		return two(d, time.Minute, "min", time.Second, "s")
	case d < 24*time.Hour:
		return two(d, time.Hour, "h", time.Minute, "min")
	}
	return two(d, 24*time.Hour, "d", time.Hour, "h")
}

func two(d, large time.Duration, a string, small time.Duration, b string) string {
	text := strconv.FormatInt(int64(d/large), 10) + " " + a
	if rest := d % large / small; rest > 0 {
		text += " " + strconv.FormatInt(int64(rest), 10) + " " + b
	}
	return text
}

// largestShown is how much of a JSON value a page shows; the rest is a download.
const largestShown = 64 << 10

// pretty indents JSON and leaves every number as it is. What is large is cut.
func pretty(raw any) string {
	var text []byte
	switch v := raw.(type) {
	case json.RawMessage:
		text = v
	case []byte:
		text = v
	case string:
		text = []byte(v)
	default:
		text, _ = json.Marshal(v) // what is shown for want of a form of its own
	}
	if len(text) > largestShown {
		return strings.ToValidUTF8(string(text[:largestShown]), "") + fmt.Sprintf("\n… %s of %s shown", byteText(largestShown), byteText(len(text)))
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return string(text)
	}
	return out.String()
}

// plural writes a number with its noun: 1 table, 2 tables.
func plural(n any, one, many string) string {
	if fmt.Sprint(n) == "1" {
		return "1 " + one
	}
	return count(n) + " " + many
}

// pillWord maps the states of the API to what a pill's colour means: ok, warn, error
// or quiet.
func pillWord(state string) string {
	switch state {
	case "ok", "active", "polling", "ready", "pass", "settled", "acked", "delivered", "completed", "done", "full":
		return "ok"
	case "warn", "warning", "retrying", "throttled", "backfilling", "waiting", "starting", "in flight", "in_flight", "running", "inserts only":
		return "warn"
	case "error", "failing", "failed", "fail", "blocked", "open", "refused", "gone", "dead", "none", "lost":
		return "error"
	}
	return "quiet"
}

// dict makes a map of pairs, for templates that take several values.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict takes pairs")
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("a key of dict is no text")
		}
		m[key] = pairs[i+1]
	}
	return m, nil
}

// spark returns the points of a line in a box of 100 by 24, for an SVG polyline; nil
// values are gaps that the line runs over.
func spark(values []*float64) string {
	most := 0.0
	for _, v := range values {
		if v != nil && *v > most {
			most = *v
		}
	}
	var b strings.Builder
	for i, v := range values {
		if v == nil || len(values) < 2 {
			continue
		}
		y := 23.0
		if most > 0 {
			y = 23 - 22**v/most
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", 100*float64(i)/float64(len(values)-1), y)
	}
	return strings.TrimSpace(b.String())
}
