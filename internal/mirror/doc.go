// Package mirror keeps the tables in Postgres that mirror an API's collections: it
// makes and widens them, and applies what was read from the API.
//
// A mirror table has `id` (the API's id: text in the order of its bytes, or bigint
// where the collection's fields declare a column id of that type) as its primary
// key, one column per field, and the system columns _id, _created_at, _updated_at,
// _synced_at, _rank, _fingerprint, _raw and _notes.
//
// # Guarantees
//
//  1. One [Mirror.Apply] is one transaction: rows, tombstones, cursors and log
//     entries commit together or not at all.
//  2. The newest look at a record wins, in whatever order looks are applied, however
//     often: by version, then rank, then the time at which the API was asked. A
//     look without a version is ordered by that time alone.
//  3. What is equal to what is there is not written: no row version, no WAL, no event.
//  4. A deleted record stays deleted until a newer version of it is seen, or, where
//     the API did not tell of the deletion itself, until it is listed again.
//  5. A sweep deletes nothing that changed or was read since it began, and nothing
//     at all beyond the safety valve.
//  6. One engine at a time writes: the session that writes is the one that holds
//     the sync's lock, and every transaction checks its fence.
//  7. A value that does not fit its column is NULL there, whole in _raw, and noted
//     in _notes. A record that the table refuses is parked and tried again. Neither
//     stops its page.
//  8. Columns are only ever added, under locks that wait for [lockWait] at most.
//     Nothing of a user's is dropped or altered: views, indexes, foreign keys,
//     columns of their own.
//  9. Which field lies in which column is kept in lockstep.sync_column, and is the
//     same after every restart.
//
// No number passes through a float on its way.
package mirror
