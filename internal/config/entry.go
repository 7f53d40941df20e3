package config

import (
	"fmt"
	"slices"
)

// DatabaseEntry is an entry of databases that was not read from a file, in the file's
// words. What is empty keeps its default.
type DatabaseEntry struct {
	Name        string
	URL         URL
	Capture     string
	Slot        string
	Publication string
	Tables      []string
	Int8        string
	RetainWAL   string // such as 50GB
}

// EntryFault is one thing that is wrong with an entry. Message says what to do, too.
type EntryFault struct{ Field, Message string }

// NewDatabase makes a database of an entry as the file would have it, or returns all that
// is wrong with it. Unlike in the file the URL is needed, and nothing in it is replaced.
// checkPattern looks at each pattern of tables; nil: they are taken as they are.
func NewDatabase(e DatabaseEntry, checkPattern func(string) error) (Database, []EntryFault) {
	var faults []EntryFault
	wrong := func(field, format string, args ...any) {
		faults = append(faults, EntryFault{field, fmt.Sprintf(format, args...)})
	}
	if rule := strictNames(); !rule.allows(e.Name) || uuidPattern.MatchString(e.Name) {
		wrong("name", "%q cannot be a name: %s", e.Name, rule.remedy)
	}
	d := defaultDatabase(e.Name)
	d.URL, d.Tables, d.Int8AsString = e.URL, slices.Clone(e.Tables), e.Int8 == "string"
	if err := checkDatabaseURL(e.URL.Reveal()); e.URL == "" || err != nil {
		wrong("url", "not a Postgres address: write postgres://user:password@host:5432/database")
	}
	switch e.Capture {
	case "", string(CaptureWAL), string(CaptureNone):
		d.Capture = or(Capture(e.Capture), d.Capture)
	case "changelog", "poll", "notify":
		wrong("capture", "capture: %s is not available in this version: use wal or none", e.Capture)
	default:
		wrong("capture", "%q is unknown: use wal or none", e.Capture)
	}
	if d.Slot = or(e.Slot, d.Slot); !slotPattern.MatchString(d.Slot) {
		wrong("slot", "%q cannot be the name of a slot: use 1 to 63 of a-z 0-9 _", d.Slot)
	}
	if d.Publication = or(e.Publication, d.Publication); len(d.Publication) > maxPublication {
		wrong("publication", "the name is longer than %d bytes: shorten it, a second publication of this name and _inserts is made", maxPublication)
	}
	if e.Int8 != "" && e.Int8 != "string" && e.Int8 != "number" {
		wrong("int8", "%q is unknown: use number or string", e.Int8)
	}
	if e.RetainWAL != "" {
		size, err := ParseSize(e.RetainWAL)
		if err != nil || size != 0 && size < MinRetainWAL {
			wrong("retain_wal", "%q is not a size that can be kept: write at least 16MiB, such as 50GB, or 0 for no limit", e.RetainWAL)
		}
		d.RetainWAL = size
	}
	return d, append(faults, checkPatterns(e.Tables, checkPattern)...)
}

func checkPatterns(tables []string, check func(string) error) []EntryFault {
	var faults []EntryFault
	for i, text := range tables {
		field := fmt.Sprintf("tables[%d]", i)
		if text == "" {
			faults = append(faults, EntryFault{field, "the pattern is empty: write schema.table, schema.* or -schema.table to exclude"})
			continue
		}
		if check == nil {
			continue
		}
		if err := check(text); err != nil {
			faults = append(faults, EntryFault{field, oneLine(err)})
		}
	}
	return faults
}

func or[T ~string](value, otherwise T) T {
	if value == "" {
		return otherwise
	}
	return value
}
