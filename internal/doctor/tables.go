package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/capture/publish"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
)

// surveys is what the first check of the tables leaves to those behind it.
type surveys struct {
	patterns pattern.Patterns
	tables   []publish.TableState
}

// captured returns the tables of which anything can be captured.
func (s *surveys) captured() []publish.TableState {
	return slices.DeleteFunc(slices.Clone(s.tables), func(t publish.TableState) bool { return t.Class == publish.None })
}

func oids(tables []publish.TableState) []uint32 {
	out := make([]uint32, len(tables))
	for i, t := range tables {
		out[i] = t.OID
	}
	return out
}

// tableChecks are those of the tables that the patterns match.
func (db *database) tableChecks() []check {
	return []check{
		{id: "tables", run: db.tables, limit: db.survey, needed: true,
			why: "what no pattern matches is not captured"},
		{id: "table_kind", run: db.tableKinds,
			why: "what is not in the write-ahead log as rows has no events"},
		{id: "table_identity", run: db.tableIdentities, fix: db.giveIdentities, limit: db.survey,
			why: "without a replica identity Postgres refuses updates and deletes of a published table; Lockstep publishes such tables for inserts only, so that no write of the application fails"},
		{id: "table_updates", run: db.tableUpdates, fix: db.giveIdentities, limit: db.survey,
			why: "the application's writes fail now"},
		{id: "table_toast", run: db.tableToast, limit: db.survey,
			why: "Postgres does not send large values that an update leaves alone: they are absent from the change unless the replica identity is FULL"},
		{id: "table_notes", run: db.tableNotes,
			why: "what changes of these tables lack"},
		{id: "table_privileges", run: db.tablePrivileges, limit: db.survey,
			why: "only a table's owner can put it into a publication; reading its rows, for a backfill, takes SELECT"},
		{id: "row_security", run: db.rowSecurity, limit: db.survey,
			why: "changes hold every row, but a backfill would leave out what row security hides"},
	}
}

func (db *database) tables(ctx context.Context) ([]verdict, error) {
	patterns, err := pattern.Parse(db.Tables)
	if err != nil {
		return one(fail("# correct databases[].tables in the configuration", "%s", plainError(err)))
	}
	all, err := publish.Survey(ctx, db.pool, patterns)
	if err != nil {
		return nil, err
	}
	*db.seen = surveys{patterns: patterns, tables: all}
	full, inserts := 0, 0
	for _, t := range all {
		switch t.Class {
		case publish.Full:
			full++
		case publish.InsertOnly:
			inserts++
		case publish.None:
		}
	}
	switch {
	case full+inserts == 0:
		return one(warn("# make tables, or correct databases[].tables in the configuration", "no table of the database is captured: the patterns match none"))
	case inserts > 0:
		return one(pass("%s captured: %d with every operation, %d with inserts only", tablesAre(full+inserts), full, inserts))
	}
	return one(pass("%s captured with every operation", tablesAre(full)))
}

func tablesAre(n int) string {
	if n == 1 {
		return "1 table is"
	}
	return fmt.Sprintf("%d tables are", n)
}

// kind is tables about which there is one and the same to say.
type kind struct {
	text            string
	names, remedies []string
	oids            []uint32
}

// remedy is that of the first three tables, and says how many more there are.
func (k kind) remedy() string {
	lines := slices.Compact(slices.Clone(k.remedies[:min(3, len(k.remedies))]))
	if n := len(k.names) - 3; n > 0 && len(lines) > 1 {
		lines = append(lines, fmt.Sprintf("-- and the same for %d more", n))
	}
	return strings.Join(lines, "\n")
}

// byKind puts tables together by what is to be said; say returns nothing for those
// that are as they should be.
func byKind(tables []publish.TableState, say func(publish.TableState) (texts []string, remedy string)) []kind {
	var kinds []kind
	at := map[string]int{}
	for _, t := range tables {
		texts, remedy := say(t)
		for _, text := range texts {
			i, known := at[text]
			if !known {
				i = len(kinds)
				at[text] = i
				kinds = append(kinds, kind{text: text})
			}
			kinds[i].names = append(kinds[i].names, t.String())
			kinds[i].remedies = append(kinds[i].remedies, remedy)
			kinds[i].oids = append(kinds[i].oids, t.OID)
		}
	}
	return kinds
}

// mostKinds bounds what one check says: reasons may name partitions, so that there
// can be one for each table.
const mostKinds = 8

func tell(kinds []kind, judge func(kind) verdict, nothing string) ([]verdict, error) {
	if len(kinds) == 0 {
		return one(pass("%s", nothing))
	}
	var out []verdict
	for _, k := range kinds[:min(len(kinds), mostKinds)] {
		out = append(out, judge(k))
	}
	if n := len(kinds) - mostKinds; n > 0 {
		out = append(out, warn("", "and %d more of the like", n))
	}
	return out, nil
}

func (db *database) tableKinds(context.Context) ([]verdict, error) {
	wished := map[string]bool{}
	kinds := byKind(db.seen.tables, func(t publish.TableState) ([]string, string) {
		if t.Class != publish.None {
			return nil, ""
		}
		wished[t.Reason] = wished[t.Reason] || t.Kind == "table" || db.seen.patterns.Names(t.Schema, t.Name)
		return []string{t.Reason}, t.Remedy
	})
	return tell(kinds, func(k kind) verdict {
		if !wished[k.text] {
			// They came along with a pattern such as public.*: nobody asked for them.
			return pass("%s: %s", few(k.names), k.text)
		}
		return warn(comment(k.remedy()), "%s: %s", few(k.names), k.text)
	}, "everything that the patterns match is a table with events")
}

// comment marks a remedy that is words.
func comment(remedy string) string {
	if remedy == "" || strings.HasPrefix(remedy, "ALTER ") || strings.HasPrefix(remedy, "--") {
		return remedy
	}
	return "# " + remedy
}

func (db *database) tableIdentities(ctx context.Context) ([]verdict, error) {
	fixes, err := db.identityFixes(ctx)
	if err != nil {
		return nil, err
	}
	kinds := byKind(db.seen.tables, func(t publish.TableState) ([]string, string) {
		if t.Class != publish.InsertOnly {
			return nil, ""
		}
		return []string{t.Reason}, t.Remedy
	})
	return tell(kinds, func(k kind) verdict {
		v := warn(comment(k.remedy()), "inserts only of %s: %s", few(k.names), k.text)
		v.fixable = k.among(fixes)
		return v
	}, "every table has a usable replica identity")
}

// tableUpdates finds tables that a publication, whoever made it, lets refuse writes.
func (db *database) tableUpdates(ctx context.Context) ([]verdict, error) {
	var bad []publish.TableState
	for _, t := range db.seen.tables {
		if t.Class == publish.InsertOnly && strings.Contains(t.Reason, publish.WouldRefuse) {
			bad = append(bad, t)
		}
	}
	if len(bad) == 0 {
		return one(pass("no publication makes a write fail"))
	}
	const query = `
SELECT t.pubname::text, c.oid
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_tables t ON t.pubname = p.pubname
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE (p.pubupdate OR p.pubdelete) AND c.oid = ANY($1::oid[])
ORDER BY 1`
	rows, err := db.pool.Query(ctx, query, oids(bad))
	if err != nil {
		return nil, err
	}
	by := map[uint32]string{}
	var name string
	var oid uint32
	if _, err := pgx.ForEachRow(rows, []any{&name, &oid}, func() error { by[oid] = name; return nil }); err != nil {
		return nil, err
	}
	fixes, err := db.identityFixes(ctx)
	if err != nil {
		return nil, err
	}
	kinds := byKind(bad, func(t publish.TableState) ([]string, string) {
		if by[t.OID] == "" {
			return nil, ""
		}
		return []string{"publication " + by[t.OID]}, t.Remedy
	})
	return tell(kinds, func(k kind) verdict {
		v := fail(comment(k.remedy()), "updates and deletes of %s fail now, because %s publishes them and they have no usable replica identity", few(k.names), k.text)
		v.fixable = k.among(fixes)
		return v
	}, "no publication makes a write fail")
}

func (db *database) tableToast(ctx context.Context) ([]verdict, error) {
	var candidates []publish.TableState
	for _, t := range db.seen.tables {
		if t.Class == publish.Full && t.Identity != "f" {
			candidates = append(candidates, t)
		}
	}
	const query = `
SELECT t.root, coalesce(bool_or(pg_catalog.pg_relation_size(k.reltoastrelid) > 0), false)
FROM unnest($1::oid[]) AS t (root)
CROSS JOIN LATERAL (
  SELECT t.root AS relid
  UNION
  SELECT p.relid::oid FROM pg_catalog.pg_partition_tree(t.root) p WHERE p.isleaf
) AS leaf
JOIN pg_catalog.pg_class k ON k.oid = leaf.relid AND k.reltoastrelid <> 0
GROUP BY t.root`
	rows, err := db.pool.Query(ctx, query, oids(candidates))
	if err != nil {
		return nil, err
	}
	large, possible := map[uint32]bool{}, 0
	var oid uint32
	var has bool
	if _, err := pgx.ForEachRow(rows, []any{&oid, &has}, func() error { large[oid] = has; possible++; return nil }); err != nil {
		return nil, err
	}
	kinds := byKind(candidates, func(t publish.TableState) ([]string, string) {
		if !large[t.OID] {
			return nil, ""
		}
		return []string{"large"}, "ALTER TABLE " + pgdb.QuoteIdent(t.Schema, t.Name) + " REPLICA IDENTITY FULL; -- takes an AccessExclusiveLock on the table, for a moment; updates and deletes then write the whole old row to the WAL"
	})
	return tell(kinds, func(k kind) verdict {
		return warn(k.remedy(), "%s with large values and a replica identity other than FULL: %s", plural(len(k.names)), few(k.names))
	}, fmt.Sprintf("no table holds large values that changes would lack (%d could)", possible))
}

func plural(n int) string {
	if n == 1 {
		return "1 table"
	}
	return fmt.Sprintf("%d tables", n)
}

// tableNotes tells what the survey notes about tables. What is so by nature of
// Postgres is for information, the rest a warning.
func (db *database) tableNotes(context.Context) ([]verdict, error) {
	kinds := byKind(db.seen.captured(), func(t publish.TableState) ([]string, string) {
		if t.Note == "" {
			return nil, ""
		}
		return []string{t.Note}, ""
	})
	slices.SortStableFunc(kinds, func(a, b kind) int { return cmp.Compare(len(publish.Unusual(b.text)), len(publish.Unusual(a.text))) })
	return tell(kinds, func(k kind) verdict {
		if publish.Unusual(k.text) == "" {
			return pass("%s: %s", few(k.names), k.text)
		}
		return warn("", "%s: %s", few(k.names), k.text)
	}, "changes of every table are complete")
}
