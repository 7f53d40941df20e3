// Keeps a copy of the table orders in a file, with @supabase/supabase-js as it is.
//
// 1. The rows and the place in the changes are written together, so that a program that
//    is killed goes on where it was.
// 2. A change that comes again does nothing more: rows are set by their key.
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createClient } from '@supabase/supabase-js'
import ws from 'ws' // Node has a WebSocket of its own from 22 on: then leave out ws and transport

const server = process.env.LOCKSTEP_SERVER ?? 'http://127.0.0.1:7300'
const token = process.env.LOCKSTEP_TOKEN ?? 'none' // a node on this machine may need none
const file = process.env.COPY ?? 'orders.json'

// since is the commit time of the last change; the first one ever asks for all there are.
let copy = { since: '1970-01-01T00:00:00Z', orders: {} }
try {
  copy = JSON.parse(readFileSync(file, 'utf8'))
} catch (error) {
  if (error.code !== 'ENOENT') throw error
}

function save() {
  writeFileSync(`${file}.new`, JSON.stringify(copy, null, 2))
  renameSync(`${file}.new`, file) // the old copy or the new one, never half of it
}

function apply(change) {
  if (change.errors) console.error('incomplete:', change.errors)
  if (change.eventType === 'DELETE') delete copy.orders[change.old.id]
  else copy.orders[change.new.id] = change.new
  // Changes of one transaction have one time. After a break all of the last one come
  // again, in their order.
  copy.since = change.commit_timestamp
  // The library joins again with this object: from here, then.
  binding.since = copy.since
  save()
  console.log(change.eventType, JSON.stringify(change.eventType === 'DELETE' ? change.old : change.new))
}

const binding = { event: '*', schema: 'public', table: 'orders', since: copy.since }
const supabase = createClient(server, token, { realtime: { transport: ws } })
supabase
  .channel('orders')
  .on('postgres_changes', binding, apply)
  .on('system', {}, (message) => {
    // For example a place that retention removed: the copy may lack changes.
    if (message.status === 'error') console.error('system:', message.message)
  })
  .subscribe((status, error) => console.error(status, error?.message ?? ''))

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, async () => {
    await supabase.removeAllChannels()
    process.exit(0)
  })
}
