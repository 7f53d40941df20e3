package publish

import (
	"fmt"
	"slices"
	"strings"

	"lockstep"
)

// The letters of pg_class.relreplident.
const (
	identityDefault = 'd'
	identityIndex   = 'i'
	identityFull    = 'f'
	identityNothing = 'n'
)

// accessExclusive is the lock of the remedies that do not rewrite a table.
const accessExclusive = " -- takes an AccessExclusiveLock on the table, for a moment"

// classify decides how a relation can be captured. It is pure: the relation, what
// lies below it, and the server say everything.
func (s server) classify(r *relation) TableState {
	state := TableState{
		OID: r.oid, Schema: r.schema, Name: r.name, Kind: r.kindName(),
		Class: Full, Published: None, Identity: "n", Key: lockstep.KeyRow,
	}
	if f, barred := r.barred(); barred {
		state.Class = None
		state.add(f)
		return state
	}
	leaves, silent := r.writable()
	if len(silent) > 0 {
		state.note("changes of " + few(silent) + " are not seen: foreign or unlogged partitions have no events")
	}
	if len(leaves) == 0 { // what a partition made later will have
		leaves = []*relation{r}
	}
	seen := make([]identity, len(leaves))
	for i, leaf := range leaves {
		seen[i] = s.identityOf(leaf)
	}
	s.judge(&state, r, seen)
	s.describe(&state, r, leaves)
	return state
}

func (r *relation) kindName() string {
	switch r.kind {
	case 'p':
		return "partitioned table"
	case 'v':
		return "view"
	case 'm':
		return "materialized view"
	case 'f':
		return "foreign table"
	case 'S':
		return "sequence"
	}
	return "table"
}

// barred says why no publication takes the relation.
func (r *relation) barred() (finding, bool) {
	switch {
	case r.kind == 'v':
		return finding{"a view has no events", "capture the tables that it reads"}, true
	case r.kind == 'm':
		return finding{"a materialized view has no events", "capture the tables that it reads"}, true
	case r.kind == 'f':
		return finding{"a foreign table has no events here", "capture it in the database that holds it"}, true
	case r.kind == 'S':
		return finding{"a sequence has no events", "capture the table that uses it"}, true
	case r.persistence == 't':
		return finding{"a temporary table has no events", "use a permanent table"}, true
	case r.persistence == 'u':
		return finding{"an unlogged table has no events: it is not in the write-ahead log",
			"ALTER TABLE " + r.quoted() + " SET LOGGED; -- takes an AccessExclusiveLock and rewrites the table"}, true
	}
	return finding{}, false
}

// writable returns the tables whose writes make events, and the names of those
// below r whose writes do not.
func (r *relation) writable() (leaves []*relation, silent []string) {
	for _, leaf := range r.leaves() {
		if leaf != r && (leaf.kind != 'r' || leaf.persistence != 'p') {
			silent = append(silent, leaf.String())
			continue
		}
		leaves = append(leaves, leaf)
	}
	return leaves, silent
}

// identity is what a table's updates and deletes hold of the old row.
type identity struct {
	of      *relation
	letter  byte
	columns []string // in the order of the index; nil for full and for unusable
	usable  bool
	refused bool // a publication of updates makes updates and deletes fail
	problem finding
}

func (s server) identityOf(r *relation) identity {
	id := s.readIdentity(r)
	// Before 18 Postgres takes changes whose key has a generated column, and leaves
	// the column out: that is of no use, but no write fails.
	left := r.identity == identityDefault && r.primary.usable || r.identity == identityIndex && r.index.usable
	id.refused = !id.usable && (!left || s.version >= publishesGenerated)
	return id
}

func (s server) readIdentity(r *relation) identity {
	id := identity{of: r, letter: r.identity}
	switch r.identity {
	case identityNothing:
		id.problem = finding{"replica identity NOTHING" + WouldRefuse, s.remedy(r)}
	case identityFull:
		return s.fullIdentity(id)
	case identityIndex:
		if !r.index.exists() || !r.index.usable {
			id.problem = finding{"the index of its replica identity is gone" + WouldRefuse, s.remedy(r)}
			return id
		}
		return s.indexIdentity(id, r.index)
	default:
		if !r.primary.exists() {
			id.problem = finding{"no primary key and no replica identity" + WouldRefuse, s.remedy(r)}
			return id
		}
		if !r.primary.usable {
			id.problem = finding{"the primary key is deferrable and there is no other replica identity" + WouldRefuse, s.remedy(r)}
			return id
		}
		return s.indexIdentity(id, r.primary)
	}
	return id
}

func (s server) fullIdentity(id identity) identity {
	if s.refusesFull(id.of) {
		id.problem = finding{"replica identity FULL with generated columns that cannot be published" + WouldRefuse, s.remedy(id.of)}
		return id
	}
	id.usable = true
	return id
}

// refusesFull: measured on 18.4; servers before 18 take every FULL.
func (s server) refusesFull(r *relation) bool {
	return s.version >= publishesGenerated && (r.virtual || r.stored && !s.generated)
}

func (s server) indexIdentity(id identity, k key) identity {
	if k.generated && !s.generated {
		id.problem = finding{"its key has a generated column, which this server does not publish", s.remedy(id.of)}
		return id
	}
	id.usable = true
	id.columns = k.columns
	return id
}

// remedy is the statement that gives the table a usable identity.
func (s server) remedy(r *relation) string {
	alter := "ALTER TABLE " + r.quoted() + " "
	if r.identity != identityDefault && r.primary.usable && (!r.primary.generated || s.generated) {
		return alter + "REPLICA IDENTITY DEFAULT;" + accessExclusive
	}
	if !s.refusesFull(r) {
		return alter + "REPLICA IDENTITY FULL;" + accessExclusive
	}
	return alter + "REPLICA IDENTITY USING INDEX …; -- a unique index on NOT NULL columns that are not generated;" + strings.TrimPrefix(accessExclusive, " --")
}

// judge sets class, identity and key from the identities of all that holds rows.
func (s server) judge(state *TableState, r *relation, seen []identity) {
	s.judgeInserts(state, r)
	var bad []identity
	for _, id := range seen {
		if !id.usable {
			bad = append(bad, id)
		}
	}
	if len(bad) > 0 {
		state.Class = InsertOnly
		state.add(unusable(r, bad))
		return
	}
	common, agreed := commonColumns(seen)
	switch {
	case s.delivers(r, seen):
		state.Key, state.KeyColumns = lockstep.KeyPrimary, r.primary.columns
	case common == nil:
		state.Key, state.KeyColumns = lockstep.KeyRow, nil
	case agreed:
		state.Key, state.KeyColumns = lockstep.KeyIdentity, common
	default:
		state.Class = InsertOnly
		state.add(finding{"its partitions have different replica identities, so that rows could not be told apart in deletes",
			"give every partition the same one, for example ALTER TABLE … REPLICA IDENTITY FULL;" + accessExclusive})
		return
	}
	state.Identity = string(weakest(seen))
}

// judgeInserts sets what holds for a table of which only inserts are seen: they
// carry the whole row, whatever the identity is.
func (s server) judgeInserts(state *TableState, r *relation) {
	if r.primary.exists() && (!r.primary.generated || s.generated) {
		state.Key, state.KeyColumns = lockstep.KeyPrimary, r.primary.columns
	}
}

// delivers reports whether every change holds all columns of the primary key, and
// that tells the row from all others.
func (s server) delivers(r *relation, seen []identity) bool {
	primary := r.primary
	if !primary.exists() || primary.generated && !s.generated || r.kind != 'p' && r.identity == identityIndex && !r.index.primary {
		return false
	}
	for _, id := range seen {
		// Two rows may have a deferrable key at once, in the middle of a transaction.
		if id.letter != identityDefault && (!primary.usable || !id.of.primary.usable) {
			return false
		}
		if id.letter == identityFull {
			continue
		}
		for _, c := range primary.columns {
			if !slices.Contains(id.columns, c) {
				return false
			}
		}
	}
	return true
}

// commonColumns returns the columns that every change holds: nil when all are whole
// rows; not agreed when the identities differ.
func commonColumns(seen []identity) (columns []string, agreed bool) {
	for _, id := range seen {
		if id.letter == identityFull {
			continue
		}
		if columns != nil && !slices.Equal(columns, id.columns) {
			return columns, false
		}
		columns = id.columns
	}
	return columns, true
}

// weakest is the letter that promises no more than every identity keeps.
func weakest(seen []identity) byte {
	letter := byte(identityFull)
	for _, id := range seen {
		if id.letter == identityIndex || id.letter == identityDefault && letter == identityFull {
			letter = id.letter
		}
	}
	return letter
}

func unusable(r *relation, bad []identity) finding {
	if len(bad) == 1 && bad[0].of == r {
		return bad[0].problem
	}
	names := make([]string, len(bad))
	remedies := make([]string, 0, 4)
	for i, id := range bad {
		names[i] = id.of.String()
		if i < 3 {
			remedies = append(remedies, id.problem.remedy)
		}
	}
	if len(bad) > 3 {
		remedies = append(remedies, fmt.Sprintf("-- and the same for %d more partitions", len(bad)-3))
	}
	return finding{"in partition " + few(names) + ": " + bad[0].problem.reason, strings.Join(remedies, "\n")}
}

// describe adds what the changes of a captured table lack.
func (s server) describe(state *TableState, r *relation, leaves []*relation) {
	if state.Class == Full && state.Identity != "f" {
		state.note(NoteOldValues)
	}
	if state.Key == lockstep.KeyIdentity {
		state.note("ordered by its replica identity (" + strings.Join(state.KeyColumns, ", ") + "); deletes carry no primary key")
	}
	if state.Key == lockstep.KeyRow && state.Class == Full {
		state.note(NoteNoKey)
		if r.primary.exists() && !r.primary.usable {
			state.note("the primary key is deferrable or not valid, so that two rows may have it at once: it is not used")
		}
	}
	if slices.ContainsFunc(leaves, func(l *relation) bool { return l.virtual || l.stored && !s.generated }) {
		state.note("generated columns are absent, as this server does not publish them")
	}
	if r.kind == 'p' {
		state.note(NotePartitions)
		if state.Class == Full && !r.primary.usable {
			state.note("a partition made later refuses updates until it has a replica identity or Lockstep has seen it: set it in the transaction that makes the partition")
		}
	}
	if r.narrowed {
		state.note("its publication has a column list or a row filter, which is left as it is")
	}
}
