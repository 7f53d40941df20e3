// next → work → ack, until you stop it. Node 18 or newer: node worker.mjs
const queue = '{{.Queue}}'
const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${process.env.LOCKSTEP_TOKEN ?? ''}` }

async function call(verb, body) {
  const answer = await fetch(`${queue}/${verb}`, {
    method: 'POST', headers, body: JSON.stringify(body), signal: AbortSignal.timeout(60_000),
  })
  const text = await answer.text()
  if (!answer.ok) throw new Error(`${verb}: HTTP ${answer.status} ${text}`)
  return text ? JSON.parse(text) : null // numbers beyond 2^53 lose digits here
}

// Your own code. Throw, and the change comes again, ever later.
// It may come twice: change.metadata.idempotency_key is the same then.
async function work(change) {
  console.log(change.action, change.metadata.table_name, JSON.stringify(change.record))
}

async function settle(verb, changes, more = {}) {
  if (changes.length > 0) await call(verb, { ack_tokens: changes.map((c) => c.ack_token), ...more })
}

for (;;) {
  try {
    const { data } = await call('next', { batch_size: 100, wait_for: '20s' })
    const done = []
    for (const change of data) {
      try {
        await work(change)
        done.push(change)
      } catch (error) {
        console.error(`seq ${change.metadata.seq}:`, error)
        await settle('nack', [change], { reason: String(error) })
        break // the later ones of its row must not overtake it
      }
    }
    await settle('ack', done)
    await settle('nack', data.slice(done.length + 1), { release: true }) // given back; no attempt is counted
  } catch (error) { // what was not settled comes again
    console.error(error.message)
    await new Promise((resolve) => setTimeout(resolve, 2000))
  }
}
