// Package backfill sends rows that a table has to one consumer, or to everybody
// where changes were missed, as changes of action read. Capture puts them between
// the changes: see wal.Page.
//
// # Guarantees
//
//  1. A row never overrides a newer change of its key: what capture met since the
//     page was read wins, and the row is left out.
//  2. Tables are read in pages along their key, in the order of the index. What
//     orders the rows and what compares them are the index's own operators and
//     collations, so no row is passed over, whatever the key's type.
//  3. Each row that stays as it is goes out once: after a crash at any moment, what
//     the log holds of the job is looked up before the next page is read.
//  4. A page is one short transaction, read only, with timeouts of its own. It locks
//     nothing that a writer would notice, and its size follows the time it took.
//  5. Memory is bounded by one page of at most 8 MB (or one row that is larger), and
//     by a fixed budget when deletes are looked for.
//  6. Live changes go first: a consumer that has much to do gets no further page.
//  7. A table that cannot be read (dropped, its key changed, no privilege) fails with
//     its reason, and the others go on. A database that is away is waited for.
//  8. A repair of gaps ends with the closing mark only when every table was read, or
//     is named as not repaired. Deletes are sent only for keys that are not there.
//
// # Rules that the contract leaves open
//
//   - A condition is read in the role's own search path. With a condition, values of
//     types such as regclass may then lack the schema that the stream names.
//   - A table that is renamed goes on under its new name, as its changes do.
//   - Rows that change again and again without their large values (unchanged TOAST)
//     are read again up to 30 times; the table says how many never stood still.
//   - After a crash a row may go out that a newer change had overridden: it is read
//     anew then, so it is as new as its place.
//   - A table of a column list or a row filter of the publication gives what these
//     let through, when Source.Publication is set.
package backfill
