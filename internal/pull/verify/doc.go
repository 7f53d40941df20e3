// Package verify compares what an API lists with what its mirror holds, and puts the
// mirror right.
//
// # Guarantees
//
//  1. What is reported differs for sure: it differed when everything was listed, and
//     still does after a settling time, when the record was asked for again and the
//     API still said the same of it. A record that changes all the time is reported
//     if the mirror does not follow.
//  2. Fingerprints are compared, and columns with the API's JSON beside them: rows that
//     somebody changed by hand are stale. Volatile fields do not count. Of virtual
//     collections, which the API computes anew each time, the columns are all that is
//     compared.
//  3. What the mirror has read since the list was is newer than the list, and no
//     difference.
//  4. A repair writes what the API has shown, unless the mirror has looked at the record
//     since. It deletes only what the API, asked for the one record, does not have;
//     where it cannot be asked so, what two complete lists do not have, and nothing
//     at all if that is more than 50 rows and 5 % of them.
//  5. Memory does not grow with the number of records: what has been listed is kept in
//     temporary tables of the mirror's database, which write no WAL.
//  6. Every request has the lowest priority. What fails for the moment is tried again; a
//     collection that cannot be read is told in Unchecked, and the others go on.
//  7. When ctx ends, so does the run, and all that it has started.
package verify
