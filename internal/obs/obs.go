// Package obs holds what Lockstep shows of itself: the names of its metrics, the
// keys of its logs, and the rule by which secrets stay out of both.
//
// # Guarantees
//
//  1. Every metric of Lockstep is declared in this package; a test compares names
//     and help texts with a golden file, because dashboards are written against them.
//  2. Metrics live on the registry that is passed in. Nothing is global: two engines
//     in one process count apart.
//  3. Labels are bounded: databases and consumers by the configuration, routes by
//     the route table, codes by HTTP. No label holds a path, a key or a token.
//  4. A logger of this package prints no value of a key that names a secret, no
//     password inside a URL and no API token, wherever they stand in the text.
package obs
