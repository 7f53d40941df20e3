// Package realtime speaks the Supabase Realtime protocol, versions 1.0.0 (JSON
// objects) and 2.0.0 (JSON arrays, binary broadcasts), so that supabase-js works
// unchanged: changes of Postgres with filters, broadcast and presence.
//
// # Guarantees
//
//  1. A join is answered only when capture is certain from a known seq on: no change
//     that is committed after the client is told SUBSCRIBED is missed.
//  2. Within a channel, changes come in the order of their seq, each once per join.
//     Each carries its seq as data.sequence; a binding may carry since, the last seq
//     that was seen (or a time), and gets what came after it. config.broadcast.since
//     and the URL's parameter since stand for all bindings without one.
//  3. What cannot be given is told, never left out in silence: places that retention
//     removed or damage took, and gaps of capture, come as system messages with
//     status error; a change for which a client was too slow ends its socket.
//  4. A database's log has one reader at its end however many sockets there are.
//     Equality filters are looked up: a change costs what it matches, not what is
//     subscribed. Channels that replay read by themselves, few at a time.
//  5. Nothing waits for a client. What waits for one is bounded in bytes, per socket
//     and in all; a socket beyond that is closed with code 1013 and the reason.
//  6. A filter that cannot be evaluated is refused at the join, with the reason.
//  7. Pages of foreign sites are refused unless they are allowed by configuration.
//     Without API tokens the node answers its own machine only.
//  8. A token that was revoked or ran out ends its channels within
//     [Limits.Reauthorize].
//
// # Changes
//
// Values are as in messages of the other interfaces, so that nothing is lost on the
// way: numeric and NaN are strings, int8 is an exact JSON number, arrays and json are
// JSON. supabase-js itself converts by the column's type: it makes JavaScript numbers
// of numeric and int8, which are exact up to 2^53 only. Who needs more digits keeps
// them in a column of type text, or reads data.record below the client.
//
// Inserts, updates and deletes are sent; TRUNCATE and rows read by backfills are not.
// old_record is the whole row where the table's replica identity is full, else its key
// (as far as [Config.Keys] knows it). An update that changes the key comes as a DELETE
// and an INSERT. Filters apply to the new row, for a DELETE to the old one; a column
// that Postgres did not send (unchanged and stored out of line, or not part of the key
// of a deleted row) matches no filter. A record above [Limits.RecordBytes] comes with
// its columns of up to 64 bytes and errors ["Error 413: Payload Too Large"].
// Row level security is not evaluated: a token reads everything or nothing.
// Types of columns are read once a minute, and at once for a new column.
//
// supabase-js joins again with the same payload when it has lost its connection: with a
// since from the beginning it gets again what it has seen. Who resumes keeps the last
// data.sequence and sets it before (updateJoinPayload), or leaves out what is known.
//
// # Broadcast and presence
//
// They live in memory of one node and are not kept: there is no replay. Whoever may
// read may broadcast; nothing of it is written anywhere. Topics of different
// databases, and private and public ones, are apart.
package realtime
