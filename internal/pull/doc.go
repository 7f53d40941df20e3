// Package pull keeps a mirror in step with an API: it decides what is read when.
// [Sync] is one account of one API; it reads through a source.Source and writes
// through a [mirror.Mirror].
//
// # Guarantees
//
//  1. The place where a feed of changes goes on is saved before the first page of
//     its collections is read. What changes meanwhile is found, however long the
//     backfill takes.
//  2. A page's records and the place behind it commit together. A crash anywhere
//     loses nothing, and costs the pages of the last second at most, or the last
//     thousand records, and the few that were read ahead. All that is known is in
//     [mirror.Mirror.States].
//  3. Nothing is deleted because it was not read: not by a backfill, not by one
//     that is done again, not by a place that the API has forgotten. A sweep deletes
//     after a complete scan of the ids without any error, and what the API, asked
//     for the record itself, does not have. Where records cannot be asked for one
//     by one, the mirror's safety valve judges. Lost access deletes nothing.
//  4. One collection's trouble stops no other: each list and each feed has its own
//     pauses, and a record that cannot be fetched holds up no feed. What a
//     collection missed while it could not be read is read again afterwards.
//  5. An API that refuses is asked ever more rarely, one that has said until when
//     not before; a credential that it refuses stops everything but the question
//     whether it works again. No call lasts longer than ten minutes.
//  6. While Postgres cannot be written, no further pages are read but those that
//     are under way.
//  7. Changes go first: a poll waits for one backfill's transaction at most, and
//     asks with a higher priority.
//  8. A hint moves no cursor, and what is lost of hints is found by polling.
//  9. Memory is bounded: 32 MB of pages read ahead, 24 bytes for each id of a sweep
//     up to 48 MB (of more ids a part is swept each time), 10,000 hints.
//  10. A poll that finds nothing, and a page that is equal to what is there, write
//     nothing.
//  11. One engine at a time works on a sync; another waits, and takes over.
//
// # What runs
//
// [Sync.Run] takes the sync's lock and asks whether the credential works. Then there
// is, for each feed, a loop that polls it and one that follows it at the trailing
// distance, and for each collection a loop that fills it and sweeps it. Loops never
// give up; what fails is in [Sync.Status], and in lockstep.sync_log when it fails
// twice in a row.
package pull
