// Package torture is the torture suite: what a change data capture must survive,
// as tests that run against a whole node and a real Postgres.
//
// # Guarantees
//
//  1. Each case is one test, named by its number: TestW… are the cases that other
//     products are reported to fail, TestE… faults of the environment, TestX… our
//     own. docs/torture.md lists them all, with what goes in and what must come
//     out; a test keeps page and suite together.
//  2. A case writes by SQL, as an application does, and reads as a consumer does:
//     by pull (next and ack) and by SSE through the HTTP API. Where a fault has to
//     be put between capture and the disk, the case runs the same capture and the
//     same stream without the engine around them, and says so.
//  3. After every case the same oracle speaks: seq is dense, ids are unique,
//     changes come in commit order, both ways of reading agree byte for byte, and
//     the stream replayed from empty by a consumer that knows nothing but the
//     messages gives the tables, compared by the text of every column of every row.
//  4. Nothing is waited for by the clock: cases wait for conditions.
package torture
