package obs

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
)

// Format is how log lines look.
type Format int

// The formats.
const (
	JSON     Format = iota // one JSON object per line: for machines
	Terminal               // key=value behind the time of day: for people
)

// Redacted stands in logs for what must not be there.
const Redacted = "[redacted]"

// NewLogger returns a logger that writes to w, from level upwards, without secrets;
// see [Redact].
func NewLogger(w io.Writer, level slog.Leveler, format Format) *slog.Logger {
	if format == Terminal {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: terminalAttr}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: Redact}))
}

// ParseLevel reads a level as LOCKSTEP_LOG gives it: debug, info, warn or error.
// Nothing means info.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return slog.LevelInfo, fmt.Errorf("unknown log level %q: use debug, info, warn or error", name)
}

func terminalAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
	}
	return Redact(groups, a)
}

// Redact is a ReplaceAttr function of [slog.HandlerOptions]. It replaces the values
// of keys that name secrets, and passwords and API tokens inside other texts.
func Redact(_ []string, a slog.Attr) slog.Attr {
	if secretKey(a.Key) {
		return slog.String(a.Key, Redacted)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		if s := a.Value.String(); suspicious(s) {
			return slog.String(a.Key, Scrub(s))
		}
	case slog.KindAny:
		return redactAny(a)
	}
	return a
}

// redactAny looks at the text that the handler would print for the value.
func redactAny(a slog.Attr) slog.Attr {
	var text string
	switch v := a.Value.Any().(type) {
	case *slog.Source:
		return a
	case error:
		text = v.Error()
	case fmt.Stringer:
		text = v.String()
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			text = fmt.Sprintf("%+v", v)
			break
		}
		text = string(raw)
		if !suspicious(text) && !secretMember.MatchString(text) {
			return a // keep the structure of harmless values
		}
	}
	return slog.String(a.Key, Scrub(text))
}

// secretKey reports whether the values of a key are secrets whatever they look like.
func secretKey(key string) bool {
	key = strings.ToLower(key)
	if strings.HasSuffix(key, "_count") || strings.HasSuffix(key, "_id") {
		return false
	}
	for _, word := range []string{"password", "passwd", "secret", "token", "authorization", "credential", "api_key", "apikey", "private_key", "cookie"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return false
}

// suspicious is a cheap test that spares most texts the regular expressions.
func suspicious(s string) bool {
	return strings.Contains(s, "://") || strings.Contains(s, "ls_") || strings.Contains(s, "=") ||
		strings.Contains(s, "earer ") || strings.Contains(s, "whsec_")
}

// Compiled once: these are constants that Go cannot spell as such.
var (
	urlPassword  = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@"]*:)([^\s"]+)@`)
	dsnPassword  = regexp.MustCompile(`(?i)\b((?:ssl)?password|passwd|secret|token)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&"]+)`)
	bearerToken  = regexp.MustCompile(`(?i)\b(bearer\s+)[^\s",]+`)
	apiToken     = regexp.MustCompile(`\b(ls_[a-z2-7]{4,32}_)[A-Za-z0-9_-]{16,}`)
	webhookKey   = regexp.MustCompile(`\bwhsec_[A-Za-z0-9+/=_-]+`)
	secretMember = regexp.MustCompile(`(?i)"[^"]*(?:password|passwd|secret|token|authorization|credential|api_?key|private_key|cookie)[^"]*"\s*:\s*("(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^,}\s]+)`)
)

// Scrub returns text with passwords in URLs and connection strings, bearer tokens,
// API tokens and secret members of JSON objects replaced by [Redacted].
func Scrub(text string) string {
	text = urlPassword.ReplaceAllString(text, "${1}"+Redacted+"@")
	text = dsnPassword.ReplaceAllString(text, "${1}="+Redacted)
	text = bearerToken.ReplaceAllString(text, "${1}"+Redacted)
	text = apiToken.ReplaceAllString(text, "${1}"+Redacted)
	text = webhookKey.ReplaceAllString(text, Redacted)
	return secretMember.ReplaceAllStringFunc(text, func(member string) string {
		return member[:strings.Index(member, ":")+1] + `"` + Redacted + `"`
	})
}
