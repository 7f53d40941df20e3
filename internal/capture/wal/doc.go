// Package wal captures a Postgres by logical replication: pgoutput over a slot,
// read raw off the socket and written straight into batches of changes.
//
// # Guarantees
//
//  1. Every committed change of a published table that matches the configuration
//     reaches the log exactly once, in commit order, through restarts of either
//     side. A change's position is (commit LSN, ordinal of its message in the
//     transaction); a restart skips up to the position of the log's last batch.
//  2. The slot is confirmed only up to the end that the log's last durable batch
//     states. While the database is idle, batches without a change move that end,
//     so that the slot of a quiet database keeps no WAL.
//  3. What one message makes (a changed key makes two changes) is never parted by
//     the end of a batch.
//  4. Memory is bounded by a few batches and the largest single row, whatever the
//     size of a transaction: Postgres spills, the log blocks, nothing is gathered.
//  5. A slow log does not cost the connection: another goroutine answers Postgres. But
//     Postgres never waits for it: when a checkpoint, a shutdown or whatever else needs
//     our walsender to end, and the log takes nothing, the connection is closed. While
//     nothing needs that, a log that hangs costs Postgres no more than the slot's WAL,
//     which rule 10 bounds; closing would only make it decode the same again.
//  6. Where changes may be missing (the slot was lost, moved or re-created, the log
//     itself was lost, or Postgres failed over), the log gets a change of action gap
//     before anything that follows, and whoever keeps the gaps is told before the log.
//  7. One value that cannot be written does not stop the others: it goes out as
//     text, named in the metadata.
//  8. A row costs no allocation once buffers have their size; what pages need costs
//     it nothing while there is none.
//  9. Rows that a reader puts between the changes ([Capture.Interleave]) never come
//     after a newer change of their key, nor before a change that they lack: also
//     when commits are in the WAL and not visible yet. A page is in the log as a
//     whole or not at all, and once.
//  10. The WAL that the slot keeps is watched: announced at half of its budget, and
//     given up by choice beyond it when nothing moves ([Config.RetainWAL]).
//
// # Rules that the protocol leaves open
//
//   - Key: the primary key when the replica identity is the default or full (or
//     when rows are only inserted), else the identity index, else the whole row.
//     Its columns are in the order of the index. When the catalog already knows
//     another table definition than the stream, the order known before is kept,
//     or else that of the columns in the table.
//   - A table with full identity and no primary key has one key for all its rows:
//     an update joins two identities, so only the table as a whole has an order.
//   - A deferrable primary key is no key under full identity: two rows may have it at
//     once.
//   - An empty log is a first start or a lost one. What [Config.Witness] has seen
//     decides: once the log was bound to a slot, an empty one is a gap (stream_lost),
//     unless the slot still stands where it was then, for all of it comes again. When
//     nobody has seen anything, an existing slot is taken for one that was made by
//     hand, which is none, unless the server knows that changes have been read from it
//     (pg_stat_replication_slots, which it forgets in a crash).
//   - A gap by partitions that were truncated is left out when the stream has told, in
//     this process, that the same transactions truncated the partitioned table. What
//     was told before a restart, or after a SAVEPOINT, is not known to be the same.
//   - In a database of encoding SQL_ASCII values come as the bytes that they are.
//   - Names in values of regclass and its like have their schema unless it is
//     pg_catalog: search_path is pinned like all that the text of values depends on.
//   - An update that changes the key is a delete of the old and an insert of the
//     new one. Old key columns that Postgres sends although the key is unchanged
//     (it does when one is stored out of line) only fill in the new row.
//   - A partitioned table with full identity whose partitions are not all full
//     sends old rows that hold nothing but the key: they are read as keys.
//   - An update of a column outside a publication's column list, or of no column at
//     all, is delivered as an update.
//   - Logical messages outside of a transaction are ignored.
//   - A row that was overridden by a change without its large value is to be read
//     again, which [Interleaved] tells. A row whose key changes between two pages,
//     from one that is still to be read to one that has been, is not seen by any
//     page: its insert names the value in metadata.unchanged.
package wal
