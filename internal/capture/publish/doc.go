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
//  7. Nobody's table is altered, and nothing is dropped but memberships in
//     publications.
//
// # What travels when a table joins
//
// One transaction holds a logical message with prefix lockstep:table:<secret> and
// the JSON of [TableMessage], then one message with prefix lockstep:row:<secret> per
// row: ROW(columns…)::text with the columns that the JSON names, in that order.
package publish
