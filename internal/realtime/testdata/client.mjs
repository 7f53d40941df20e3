// What the tour and the recorder share: a client of the package that is asked for, the
// test that changes the database, and waiting.
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

export const [, , sdk, name, url] = process.argv
const require = createRequire(pathToFileURL(path.join(sdk, 'package.json')))
export const ws = require('ws')
export const current = name === 'supabase-new'

// opener returns what makes clients over a WebSocket. The old package does not connect
// with a transport that it is given (its own fault), and takes the global one.
export function opener(transport) {
  if (!current) globalThis.WebSocket = transport
  const { createClient } = require(name)
  return (options = {}) => createClient(url, 'reader', { realtime: current ? { transport, ...options } : options })
}

// control asks the test for something: change, drop.
export async function control(what, body = {}) {
  const response = await fetch(`${url}/control/${what}`, { method: 'POST', body: JSON.stringify(body) })
  if (!response.ok) throw new Error(`control ${what}: ${response.status} ${await response.text()}`)
  return response.json()
}

export function check(holds, what, ...seen) {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(seen)}`)
}

// until waits for a condition.
export async function until(what, holds) {
  const deadline = Date.now() + 15_000
  for (;;) {
    const value = holds()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

// subscribed subscribes a channel and returns its statuses, of which the first is there.
export async function subscribed(channel, want = 'SUBSCRIBED') {
  const statuses = []
  channel.subscribe((status, error) => statuses.push(error ? `${status} ${error.message}` : status))
  await until(`${want} on ${channel.topic}, ${JSON.stringify(statuses)}`, () => statuses.some((s) => s.startsWith(want)))
  return statuses
}
