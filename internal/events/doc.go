// Package events sends the rows that are inserted into an events table to the
// subscribers that they are addressed to: live, and replayed from the log.
//
// # Guarantees
//
//  1. A session gets every row of its subscriber from its place on, each once, in the
//     order of the log, which is the order of commits. It does not matter whether a row
//     comes from a replay or live: both are the same reading of the log.
//  2. A session that goes on behind an id gets what lies behind that row in the log.
//     Ids are never compared to decide that: with a sequence the higher id may commit
//     first, and the lower one then comes later, also to a client that has seen the
//     higher one.
//  3. An id that the log does not hold, and places that retention or damage took, are
//     told by an event gap, never by silence; the session goes on with what is there.
//  4. Sessions that read about the same place of the log share one reader, above all
//     those at its end, however many there are. A row is made an event once, and offered
//     only to the sessions of its subscriber.
//  5. Nothing waits for a client. What waits for one is bounded by [Limits.QueueBytes];
//     one that is slower leaves the shared reader, and goes on from where it was when it
//     has taken what waits. Few readers that are behind read at a time.
//  6. No database is asked anything: the log is all that is needed.
//
// # Where an id lies
//
// A bigserial grows, but not quite in the order of commits. So the index of a table
// remembers for stretches of the log which ids lie between the least and the greatest
// of the stretch, and a search reads only those stretches that may hold the id, the
// latest first. It is filled by what is read live, and backwards from the end of the log
// as far as searches need it; before that far, the place is guessed by bisection. Its
// memory is bounded: stretches grow with the log. Ids that do not grow (random uuids)
// are found, too, by reading the log backwards. Where an id is there twice, the later
// row counts, if both were looked at.
//
// # What is an event
//
// An inserted row of the table, with the columns id, type, subscriber and payload.
// Updates, deletes and rows that backfills read are none. A row whose subscriber is NULL
// is addressed to nobody.
package events
