package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"lockstep"
)

// longestName is Postgres' limit for identifiers, in bytes (NAMEDATALEN - 1).
const longestName = 63

// idColumn is the primary key's name.
const idColumn = "id"

// systemColumns are those that Lockstep adds to every mirror table, with their types.
func systemColumns() [][2]string {
	return [][2]string{
		{"_id", "uuid"}, {"_created_at", "timestamptz"}, {"_updated_at", "timestamptz"}, {"_synced_at", "timestamptz"},
		{"_rank", "smallint"}, {"_fingerprint", "bytea"}, {"_raw", "jsonb"}, {"_notes", "jsonb"},
	}
}

// reserved says whether no field may have a column of that name: it is ours, or
// Postgres' own in every table.
func reserved(name string) bool {
	return name == idColumn || slices.Contains([]string{"xmin", "xmax", "cmin", "cmax", "ctid", "tableoid"}, name) ||
		slices.ContainsFunc(systemColumns(), func(c [2]string) bool { return c[0] == name })
}

// snake turns an API's name of a field into one that reads well in SQL: letters and
// digits of any script in lower case, everything else as one underscore.
func snake(name string) string {
	var out strings.Builder
	var before rune
	for i, r := range name {
		switch {
		case unicode.IsUpper(r):
			next, _ := utf8.DecodeRuneInString(name[i+utf8.RuneLen(r):])
			if unicode.IsLower(before) || unicode.IsDigit(before) || unicode.IsUpper(before) && unicode.IsLower(next) {
				out.WriteByte('_')
			}
			out.WriteRune(unicode.ToLower(r))
		case r == utf8.RuneError || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r):
			out.WriteByte('_')
		default:
			out.WriteRune(unicode.ToLower(r))
		}
		before = r
	}
	s := out.String()
	for strings.Contains(s, "__") && !strings.Contains(name, "__") {
		s = strings.ReplaceAll(s, "__", "_")
	}
	if trimmed := strings.Trim(s, "_"); trimmed == "" {
		return "field"
	}
	return s
}

// fit returns a name that Postgres takes and that is not taken: name itself where
// that is possible, else a part of it with a hash of the key, which is the same
// whenever it is asked for again.
func fit(name, key string, taken func(string) bool) string {
	name = strings.ReplaceAll(strings.ToValidUTF8(name, "_"), "\x00", "_")
	if name != "" && len(name) <= longestName && !taken(name) {
		return name
	}
	for salt := ""; ; salt += "+" {
		sum := sha256.Sum256([]byte(key + salt))
		suffix := "_" + hex.EncodeToString(sum[:4])
		if short := shorten(name, longestName-len(suffix)) + suffix; !taken(short) {
			return short
		}
	}
}

// shorten cuts at a character's border.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

func checkSchema(name string) error {
	switch {
	case name == "" || len(name) > longestName || strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return fmt.Errorf("the schema's name %q is not one that Postgres takes: 1 to %d bytes: %w", name, longestName, lockstep.ErrInvalid)
	case strings.HasPrefix(name, "pg_") || name == "information_schema" || name == "lockstep":
		return fmt.Errorf("the schema %s is not for mirror tables: choose another: %w", name, lockstep.ErrInvalid)
	}
	return nil
}
