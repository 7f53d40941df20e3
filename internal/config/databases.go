package config

import (
	"fmt"
	"regexp"
	"strings"

	"lockstep"
)

var slotPattern = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// maxPublication leaves room in Postgres' 63 bytes for the suffix _inserts.
const maxPublication = 63 - len("_inserts")

// slotName is the slot's and the publication's name for a database without one.
func slotName(database string) string {
	name := "lockstep_" + strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToLower(database))
	return name[:min(len(name), maxPublication)]
}

// databases replaces the default database by those that are configured, and
// returns the names that other parts of the file may refer to.
func (r *reader) databases(v value, c *Config) []string {
	items := r.list(v)
	if len(items) == 0 {
		return []string{c.Databases[0].Name}
	}
	c.Databases = nil
	var known []string
	names, slots := map[string]value{}, map[string]string{}
	for _, item := range items {
		d := r.databaseEntry(item, names)
		c.Databases = append(c.Databases, d)
		if d.Name == "" {
			continue
		}
		known = append(known, d.Name)
		if d.Capture != CaptureWAL {
			continue
		}
		// A slot belongs to the whole server, not to one of its databases.
		key := serverOf(d.URL) + "\x00" + d.Slot
		if other, taken := slots[key]; taken {
			r.wrong(item, fmt.Sprintf("the slot %s is already that of the database %s", d.Slot, other), "give one of them another slot and publication")
		}
		slots[key] = d.Name
	}
	return known
}

// databaseNames reads what databases a file for a node elsewhere counts on. How they are
// reached and captured is that node's own business.
func (r *reader) databaseNames(v value, c *Config) []string {
	var known []string
	names := map[string]value{}
	c.Databases = nil
	for _, item := range r.list(v) {
		f, ok := r.mapping(item, databaseKeys()...)
		if !ok {
			continue
		}
		d := Database{Capture: CaptureWAL}
		r.name(f, &d.Name, names)
		r.capture(f, &d)
		if d.Name != "" {
			c.Databases, known = append(c.Databases, d), append(known, d.Name)
		}
	}
	if len(known) > 0 {
		return known
	}
	for _, name := range r.options.Remote.Databases {
		c.Databases = append(c.Databases, Database{Name: name, Capture: CaptureWAL})
	}
	return r.options.Remote.Databases
}

func databaseKeys() []string {
	return []string{"name", "url", "capture", "slot", "publication", "tables", "int8", "retain_wal", "poll"}
}

func (r *reader) databaseEntry(item value, names map[string]value) Database {
	f, ok := r.mapping(item, databaseKeys()...)
	if !ok {
		return Database{}
	}
	name := ""
	r.name(f, &name, names)
	d := defaultDatabase(name)
	address := ""
	r.text(f.get("url"), &address)
	d.URL = URL(address)
	if err := checkDatabaseURL(address); address != "" && err != nil {
		r.wrong(f.get("url"), err.Error(), "write postgres://user:password@host:5432/database, or leave it out for a private Postgres")
	}
	r.capture(f, &d)
	r.text(f.get("slot"), &d.Slot)
	if !slotPattern.MatchString(d.Slot) {
		r.wrong(f.get("slot"), fmt.Sprintf("%q cannot be the name of a slot", d.Slot), "use 1 to 63 of a-z 0-9 _")
	}
	r.text(f.get("publication"), &d.Publication)
	if len(d.Publication) > maxPublication {
		r.wrong(f.get("publication"), fmt.Sprintf("the name is longer than %d bytes", maxPublication), "shorten it: a second publication of this name and _inserts is made")
	}
	d.Tables = r.patterns(f.get("tables"))
	int8 := "number"
	word(r, f.get("int8"), &int8, "number", "string")
	d.Int8AsString = int8 == "string"
	r.retainWAL(f.get("retain_wal"), &d.RetainWAL)
	return d
}

// retainWAL reads how much of the database's log may be held back. So little that the
// slot would be given up at every turn is taken for a unit that was forgotten.
func (r *reader) retainWAL(v value, dst *int64) {
	size := *dst
	r.size(v, &size)
	if size != 0 && size < MinRetainWAL {
		r.wrong(v, fmt.Sprintf("%d bytes is too little: the log is kept in segments of 16 MiB", size), "write at least 16MiB, such as 50GB, or 0 for no limit")
		return
	}
	*dst = size
}

func (r *reader) capture(f fields, d *Database) {
	way := CaptureWAL
	word(r, f.get("capture"), &way, CaptureWAL, "changelog", "poll", "notify", CaptureNone)
	if way != CaptureWAL && way != CaptureNone {
		r.wrong(f.get("capture"), fmt.Sprintf("capture: %s is not available in this version", way), "use wal or none")
		way = CaptureWAL
	}
	d.Capture = way
	if !f.has("poll") {
		return
	}
	if poll, ok := r.mapping(f.get("poll"), "interval", "cursor", "deletes"); ok {
		var ignored string
		interval := maxAge
		r.duration(poll.get("interval"), &interval, 0, maxAge)
		r.text(poll.get("cursor"), &ignored)
		r.text(poll.get("deletes"), &ignored)
	}
	if !f.has("capture") {
		r.wrong(f.get("poll"), "poll belongs to capture: poll, which is not available in this version", "remove it")
	}
}

// patterns reads a list of patterns of tables.
func (r *reader) patterns(v value) []string {
	var out []string
	for _, item := range r.list(v) {
		text, ok := r.scalar(item, "a pattern")
		if !ok {
			continue
		}
		if text == "" {
			r.wrong(item, "the pattern is empty", "write schema.table, schema.* or -schema.table to exclude")
			continue
		}
		if r.options.CheckPattern != nil {
			if err := r.options.CheckPattern(text); err != nil {
				r.wrong(item, oneLine(err), "")
				continue
			}
		}
		out = append(out, text)
	}
	return out
}

// oneLine folds the message of another package's error, which tells the remedy
// itself, into one line. That it is about invalid input goes without saying here.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	kind := lockstep.ErrInvalid.Error()
	return strings.TrimSuffix(strings.TrimPrefix(text, kind+": "), ": "+kind)
}
