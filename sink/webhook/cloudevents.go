package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/sink"
)

// event holds the attributes of CloudEvents 1.0 that a change has. Names of extensions
// are of a to z and 0 to 9 only: others are refused by the libraries.
type event struct {
	id, source, kind, subject string
	at                        time.Time
	partition, sequence       string
}

// event makes the attributes of a change.
func (w *Webhook) event(m sink.Message) (event, error) {
	e := event{
		id: m.IdempotencyKey, source: w.config.Source, at: m.CommitTime.UTC(), subject: subject(m.PKs),
		partition: strconv.FormatUint(m.Key, 10), sequence: fmt.Sprintf("%020d", m.Seq),
	}
	if e.source == "" {
		e.source = "/databases/" + url.PathEscape(m.Database)
	}
	if w.config.TypeFor == nil {
		e.kind = kindOf(m)
		return e, nil
	}
	kind, err := w.config.TypeFor(m)
	if err != nil || kind == "" {
		return event{}, w.refusal(sink.Rejected, "the expression for the CloudEvents type has no result for the change", err)
	}
	e.kind = kind
	return e, nil
}

func kindOf(m sink.Message) string {
	parts := []string{"lockstep"}
	for _, p := range []string{m.Schema, m.Table} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(append(parts, actionOf(m)), ".")
}

// subject is the key's text; of several columns, each escaped as in a path, with
// slashes between.
func subject(pks json.RawMessage) string {
	var list []string
	if json.Unmarshal(pks, &list) != nil {
		return ""
	}
	if len(list) == 1 {
		return list[0]
	}
	for i, p := range list {
		list[i] = url.PathEscape(p)
	}
	return strings.Join(list, "/")
}

// each calls f with the attributes that are present. Control characters are not allowed
// in them: they are escaped.
func (e event) each(f func(name, value string)) {
	f("specversion", "1.0")
	f("id", printable(e.id))
	f("source", printable(e.source))
	f("type", printable(e.kind))
	if e.subject != "" {
		f("subject", printable(e.subject))
	}
	if !e.at.IsZero() {
		f("time", e.at.Format(time.RFC3339Nano))
	}
	f("partitionkey", e.partition)
	f("sequence", e.sequence)
}

// headers returns the attributes as in binary mode.
func (e event) headers() map[string]string {
	to := map[string]string{}
	e.each(func(name, value string) { to["Ce-"+name] = escapeHeader(value) })
	return to
}

// appendJSON appends the event as in structured mode, data as it is.
func (e event) appendJSON(dst, data []byte) []byte {
	dst = append(dst, '{')
	e.each(func(name, value string) {
		dst = append(append(append(dst, '"'), name...), '"', ':')
		dst = append(lockstep.AppendJSONString(dst, value), ',')
	})
	dst = append(dst, `"datacontenttype":"application/json","data":`...)
	return append(append(dst, data...), '}')
}

func printable(s string) string {
	if !strings.ContainsFunc(s, isControl) {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if isControl(r) {
			fmt.Fprintf(&b, "%%%02X", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f }

// escapeHeader encodes an attribute for a header by the HTTP binding of CloudEvents,
// 3.1.3.2: space, quote, percent and all that is not printable ASCII.
func escapeHeader(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c > ' ' && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}
