// Package match decides whether a row passes a filter of the Realtime protocol:
// column=operator.value, several joined by commas, with PostgREST's quoting.
//
// # Guarantees
//
//  1. A comparison means what it means in Postgres for the column's type, with SQL's
//     NULL: a condition that is neither true nor false does not match, negated or not.
//  2. Numbers are exact: int8 and numeric never pass through float64. Only float4 and
//     float8 columns are compared as floats.
//  3. What cannot be compared is refused when the filter is compiled, with the reason,
//     and never guessed at when a row comes.
//  4. A column that the row does not hold (a large value that Postgres did not send
//     again, a delete of which only the key is known) does not match.
//  5. No filter and no row makes matching take longer than their lengths multiplied.
//
// # Where Postgres is not followed
//
//   - Text is ordered by its bytes (COLLATE "C"), whatever the column's collation.
//     Equality is that of deterministic collations. citext, ilike and imatch fold case
//     by Unicode.
//   - Dates and times are read in ISO 8601 (and infinity), not in every form that
//     Postgres takes, and without a zone in UTC.
//   - match and imatch know POSIX classes and Postgres' escapes, but no back references
//     and no look-around: those are refused.
//   - Types that this package does not know (enums, inet, intervals, ranges ...) are
//     compared for equality only, by the text that Postgres writes. Arrays and types
//     without equality take is.null only.
//   - An unquoted null is NULL for isdistinct and in lists of in.
package match
