// Package tail brings the changes of databases' logs to streams of events: to each
// session those that it selects, live and replayed.
//
// # Guarantees
//
//  1. A session gets every change that it selects from its place on, each once, in the
//     order of seq. It does not matter who reads for it, nor how often that changes: a
//     session has one place, and whoever reads goes on from there.
//  2. Sessions at about the same place share a reader, above all those at the end of the
//     log, however many there are. A change is looked at once for all of them, and made
//     an event once: they get the same bytes.
//  3. A filter that needs record.customer == 42, or something like it, is looked up by
//     the value: a change costs what it matches, not what is subscribed. Looking up only
//     leaves out filters that yield false; all others are evaluated, so that the result,
//     and each error, is that of the filter.
//  4. Nobody waits for a client. What waits for a session is bounded by
//     [Limits.QueueBytes]; one that is slower leaves the shared reader, reads the log by
//     itself as fast as its client takes it, and shares again at the end of the log.
//  5. Nobody waits for a filter. One that takes more than a little work on a change is
//     evaluated by its own session, which reads by itself from then on. Filters that
//     cannot be looked up have readers apart from those that can.
//  6. A place that retention removed, or that is not of this log, is told by an event
//     gap; a change on which a filter fails by an event error. Neither is left out in
//     silence.
//  7. The memory of a session is that of its queue, of as much on its way to the client,
//     and of one batch while it reads by itself.
package tail
