package events

import (
	"fmt"
	"strings"

	"lockstep"
)

// Table names an events table.
type Table struct{ Schema, Name string }

// String returns schema.name, for people.
func (t Table) String() string { return t.Schema + "." + t.Name }

// ParseTable reads schema.name, or the name of a table of public. Names with dots or
// quotes stand in double quotes, as in SQL; case counts. Errors wrap lockstep.ErrInvalid.
func ParseTable(text string) (Table, error) {
	var names []string
	for rest := text; ; {
		name, behind, ok := cutName(rest)
		if !ok || name == "" || len(names) == 2 {
			return Table{}, fmt.Errorf("%q is not a table: write schema.table, such as public.events: %w", text, lockstep.ErrInvalid)
		}
		names = append(names, name)
		if behind == "" {
			break
		}
		rest = behind[1:]
	}
	if len(names) == 1 {
		return Table{"public", names[0]}, nil
	}
	return Table{names[0], names[1]}, nil
}

// cutName cuts a name off; behind is empty or begins with a dot.
func cutName(text string) (name, behind string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexByte(text, '.')
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], !strings.Contains(text[:end], `"`)
	}
	for text = text[1:]; ; {
		before, after, closed := strings.Cut(text, `"`)
		if !closed {
			return "", "", false
		}
		name += before
		if !strings.HasPrefix(after, `"`) {
			return name, after, after == "" || after[0] == '.'
		}
		name, text = name+`"`, after[1:]
	}
}
