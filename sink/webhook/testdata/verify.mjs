// Runs README.md's verify, that of svix, and the parser of cloudevents over requests
// that were really sent. stdin: {requests: [{headers, body, secrets, ok}], events: [{headers, body}]}
import { readFileSync } from "node:fs"
import assert from "node:assert/strict"
import { Webhook as Svix } from "svix"
import { HTTP } from "cloudevents"
import { verify } from "./readme.mjs"

const { requests, events } = JSON.parse(readFileSync(0, "utf8"))
for (const { what, headers, body, secret, ok } of requests) {
  for (const [library, check] of [["standardwebhooks", verify], ["svix", (h, b, s) => new Svix(s).verify(b, h)]]) {
    if (ok) {
      assert.doesNotThrow(() => check(headers, body, secret), `${library}: ${what}`)
    } else {
      assert.throws(() => check(headers, body, secret), `${library}: ${what}`)
    }
  }
}
let parsed = 0
for (const { headers, body, ids } of events) {
  const list = [HTTP.toEvent({ headers, body })].flat()
  assert.deepEqual(list.map((e) => e.id), ids)
  for (const e of list) {
    assert.equal(e.type, "lockstep.public.orders.update")
    assert.match(e.time, /^2026-11-21T10:00:00\.123(456)?Z$/) // the library cuts it in some modes
    const data = typeof e.data === "string" ? JSON.parse(e.data) : e.data
    assert.equal(data.metadata.idempotency_key, e.id)
    parsed++
  }
}
console.log(`verified ${requests.length} requests, parsed ${parsed} events`)
