// Package stream is the durable log between capture and delivery: one log per
// database, the saved state of consumers, and their dead letters. It runs an
// embedded JetStream server or uses one by URL; no NATS type leaves the package.
//
// # Guarantees
//
//  1. A batch whose done(nil) was called is on disk (fsynced) with the embedded
//     server. With an external server it is as durable as that server's
//     sync_interval and the streams' replicas make it.
//  2. Batches lie in the log in append order and their seqs are dense. A batch is
//     there as a whole or not at all, whatever is killed in between.
//  3. One writer: each batch names the end it continues. When somebody else wrote,
//     the append fails with ErrFenced. After one failure nothing more is written
//     until Recover, and after Recover nothing sent before it can still arrive.
//  4. Last moves only when a batch is durable; readers never see more than that.
//  5. Nothing is skipped silently: a reader that asks for what retention or damage
//     has removed gets a RetentionError or a CorruptError that names the range.
//     A damaged batch is never served.
//  6. Seqs are never used twice and the restart position survives, also when
//     retention has removed every change.
//  7. Memory: CacheBytes for parsed batches, as much again for read-ahead over all
//     readers together (at least one batch each), the in-flight budget per log.
//  8. A reader at the end of the log waits without polling and gets the very
//     *lockstep.Batch that was appended; one that is behind reads on its own.
//  9. State that Save returned is on disk, and a letter that Put returned too.
//  10. With the embedded server, damage to one saved state costs no other one. A state
//     that is lost or older than one that was saved is told, by the log and by Lost;
//     after a crash except for what was saved in about the last second. Nothing that
//     happens to the copies of marks stops the log or a save.
//
// # How it lies in JetStream
//
// A database's log is the stream LOCKSTEP_<database>, one message per batch, the
// body being the sealed batch. A batch above the server's message limit lies in
// several messages, its parts. Headers repeat what peeks need:
//
//	Lockstep-First  the first change's seq
//	Lockstep-Count  how many changes
//	Lockstep-Part   i/n, only on parts
//	Lockstep-Time   the latest commit time so far in the log, microseconds
//
// Parts that a crash left without their last one are passed over: the next
// message begins with part 1 or is whole. Consumers' states lie in the key-value
// bucket lockstep-state, dead letters in the stream LOCKSTEP-DEAD with one
// subject per letter.
//
// The server stops writing to a bucket when it meets a damaged record there, or cuts a
// file off behind it without a word. So before the embedded server starts, the files of
// the buckets are read here, and a damaged bucket is replaced by what can be read of it
// (salvager). How far each state was is known to a second file, witness.
//
// Bytes are retained by JetStream itself (max_bytes, discard old). Age is not: its
// max_age would also remove the last batch of an idle database, which is where
// capture goes on after a restart. So the log trims by age on batch borders and
// leaves the last batch. A copy of the last mark in the bucket lockstep-marks, at most
// a second old, is the second line: for a stream purged or damaged by others.
package stream
