// Package publish decides which tables of a database are captured and how, and
// keeps two publications so.
//
// # Guarantees
//
//  1. No write of the application fails because of a publication that this package
//     keeps. A table whose UPDATE or DELETE a publication would make fail is
//     published for inserts and truncates only. One that loses its replica identity
//     later is moved within a round; until then its updates fail, as Postgres has
//     no way to be told before.
//  2. Tables are listed by name, never by FOR ALL TABLES or TABLES IN SCHEMA. A
//     publication of that kind is reported, with the tables in danger, and left
//     alone.
//  3. A table is in one of the two publications, never in both: Postgres unites
//     what they publish.
//  4. Locks are short. Altering a publication never waits in front of a write of
//     the application; taking in a table that has rows does, for at most
//     Config.JoinLockTimeout at a time.
//  5. One table that cannot be published (not owned, locked, unlogged) never stops
//     the others. It is in the states with its reason and its remedy.
//  6. A table that is found with rows after capture began is taken in together with
//     its rows: they lie in the write-ahead log after every earlier write to it and
//     before every later one. Where that is not possible (too large, never quiet),
//     the log and the state say so.
//  7. What changes rows of a captured table without events is found within a round, or
//     at the next start with a Seen that remembers, and told in the log as a gap: see
//     below. A false gap is possible, a missed one is not, but for what is listed there.
//  8. Nobody's table is altered, and nothing is dropped but memberships in
//     publications; [Remove] also drops what was made here.
//
// # What travels when a table joins
//
// One transaction holds a logical message with prefix lockstep:table:<secret> and
// the JSON of [TableMessage], then one message with prefix lockstep:row:<secret> per
// row: ROW(columns…)::text with the columns that the JSON names, in that order.
//
// # What changes rows without events
//
// After every survey the tables that have rows of their own (plain tables, and the
// leaves of partitioned ones) are compared with the survey before it by their file,
// their columns and their place below the partitioned table. A finding becomes a
// message with prefix lockstep:gap:<secret> and the JSON of [GapMessage]; then the new
// look is remembered, in this order, so that a crash repeats a gap and loses none.
//
//   - A column has another type, or was added with a value for every row (rewritten,
//     or kept in the catalog): table_rewritten, if the table has a row. varchar to text
//     and back without a rewrite is none.
//   - The file is another and the columns look the same: nothing, if a row is there
//     that was written before the last survey (VACUUM FULL, CLUSTER and SET TABLESPACE
//     keep the transaction that wrote a row). Else, if a column was altered and there are
//     rows: table_rewritten (ALTER COLUMN … USING). Else a leaf was truncated:
//     leaf_truncated; TRUNCATE of a plain table is in the log.
//   - TRUNCATE of the partitioned table is in the log too, but leaves the catalog as
//     TRUNCATE of each partition would. The gap names the transactions that did it, so
//     that the log's reader can leave it out: see [GapTable].
//   - A partition was attached with rows, detached or dropped: table_rewritten. One
//     that was made by CREATE TABLE … PARTITION OF never had rows from elsewhere.
//   - The table was out of its publication, or that was gone, and it is back:
//     publication_rebuilt. The transaction that puts it back tells the gap, and brings
//     no rows: those that are in the log came once, and the gap's repair brings all. It
//     waits for those who write to the table. When they never leave it alone, the table
//     is back beside them, and the gap is told once more when all of them have ended,
//     as their changes from before are in no page that a repair has read until then.
//     The same is told of a table that joined beside writers without its rows.
//
// False gaps: VACUUM FULL of a leaf that is empty, or all of whose rows are younger
// than the last survey; a partition dropped or detached that was empty; a leaf that
// cannot be read within a second, or not with this role's privileges. That a leaf was
// empty at the last survey excuses nothing: rows may have come with events since, and
// gone by TRUNCATE or with their partition, and the catalog looks the same. Not seen:
// that a table was out and is back between two surveys; what happens to a table before
// it is surveyed for the first time; and TRUNCATE of a partition by the transaction that
// made it or that truncated the partitioned table (it keeps its file).
package publish
