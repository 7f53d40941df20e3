// The tour of supabase-js through everything that the server speaks. Arguments: the
// folder of the packages, the package, the server's URL.
import { check, control, current, opener, subscribed, until, ws } from './client.mjs'

const open = opener(ws)

async function changes() {
  const client = open()
  const big = [], all = [], systems = []
  const channel = client
    .channel('changes')
    .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'orders', filter: 'amount=gt.100' }, (p) => big.push(p))
    .on('postgres_changes', { event: '*', schema: 'public', table: 'orders' }, (p) => all.push(p))
    .on('system', {}, (p) => systems.push(p))
  await subscribed(channel)
  // Nothing that is written after SUBSCRIBED is missed: no wait here.
  await control('change', { record: { id: 1, amount: '50', status: 'a' } })
  await control('change', { record: { id: 2, amount: '100.50', status: 'a' } })
  await control('change', { action: 'update', record: { id: 2, amount: '100.50', status: 'b' }, changes: { status: 'a' } })
  await control('change', { action: 'delete', record: { id: 1 } })
  await until('four changes', () => all.length === 4)
  check(big.length === 1 && big[0].new.id === 2 && big[0].new.amount === 100.5, 'the filter', big)
  const [one, , three, four] = all
  check(one.eventType === 'INSERT' && one.schema === 'public' && one.table === 'orders' && one.errors === null && one.new.status === 'a' && Object.keys(one.old).length === 0, 'insert', one)
  check(!Number.isNaN(Date.parse(one.commit_timestamp)), 'time', one)
  check(three.eventType === 'UPDATE' && three.new.status === 'b' && three.old.status === 'a', 'update', three)
  check(four.eventType === 'DELETE' && four.old.id === 1 && Object.keys(four.new).length === 0, 'delete', four)
  check(systems.some((s) => s.status === 'ok' && s.extension === 'postgres_changes'), 'system', systems)
  check((await client.removeChannel(channel)) === 'ok', 'leave')

  // Resuming from a place, behind the first two changes.
  const { last } = await control('last')
  const again = []
  const resumed = client.channel('resumed').on('postgres_changes', { event: '*', schema: 'public', table: 'orders', since: last - 2 }, (p) => again.push(p))
  await subscribed(resumed)
  await until('what came after the place', () => again.length === 2)
  check(again[0].eventType === 'UPDATE' && again[1].eventType === 'DELETE', 'resumed', again)

  // A filter that cannot be is told.
  const told = []
  const bad = client
    .channel('bad')
    .on('postgres_changes', { event: '*', schema: 'public', table: 'orders', filter: 'amount=nope.1' }, () => {})
    .on('system', {}, (p) => told.push(p))
  await subscribed(bad)
  await until('the reason', () => told.some((s) => s.status === 'error' && s.message.includes('Error parsing `filter` params')))
  await client.removeAllChannels()
}

async function reconnect() {
  const client = open({ reconnectAfterMs: () => 50 })
  const seen = []
  const channel = client.channel('again').on('postgres_changes', { event: '*', schema: 'public', table: 'orders' }, (p) => seen.push(p))
  const statuses = await subscribed(channel)
  await control('drop')
  await until('subscribed again', () => statuses.filter((s) => s === 'SUBSCRIBED').length === 2)
  await control('change', { record: { id: 10 } })
  await until('the change after the reconnect', () => seen.some((p) => p.new.id === 10))
  await client.removeAllChannels()
}

async function broadcast() {
  const [ann, bob] = [open(), open()]
  const heard = []
  const listening = bob.channel('room').on('broadcast', { event: 'shout' }, (p) => heard.push(p))
  await subscribed(listening)
  const echoes = []
  const talking = ann.channel('room', { config: { broadcast: { self: true, ack: true } } }).on('broadcast', { event: '*' }, (p) => echoes.push(p))
  await subscribed(talking)
  check((await talking.send({ type: 'broadcast', event: 'shout', payload: { text: 'héllo' } })) === 'ok', 'ack')
  await until('the broadcast', () => heard.length === 1 && echoes.length === 1)
  check(heard[0].event === 'shout' && heard[0].type === 'broadcast' && heard[0].payload.text === 'héllo', 'payload', heard)
  if (current) {
    await talking.send({ type: 'broadcast', event: 'shout', payload: new Uint8Array([0, 1, 255]).buffer })
    await until('bytes', () => heard.length === 2)
    check(new Uint8Array(heard[1].payload).join() === '0,1,255', 'bytes', heard[1])
    await talking.httpSend('shout', { text: 'by http' })
    await until('the broadcast by http', () => heard.length === 3)
    check(heard[2].payload.text === 'by http', 'by http', heard[2])
  }
  // Before it has joined, send goes by HTTP by itself.
  const before = heard.length
  check((await ann.channel('room2').send({ type: 'broadcast', event: 'shout', payload: {} })) === 'ok', 'send without joining')
  const third = open()
  await third.channel('room').send({ type: 'broadcast', event: 'shout', payload: { text: 'not joined' } })
  await until('a broadcast of one who has not joined', () => heard.length === before + 1)
  await Promise.all([ann, bob, third].map((c) => c.removeAllChannels()))
}

async function presence() {
  const [ann, bob] = [open(), open()]
  const joins = [], leaves = []
  const watching = bob
    .channel('lobby', { config: { presence: { key: 'bob' } } })
    .on('presence', { event: 'sync' }, () => {})
    .on('presence', { event: 'join' }, (p) => joins.push(p))
    .on('presence', { event: 'leave' }, (p) => leaves.push(p))
  await subscribed(watching)
  const coming = ann.channel('lobby', { config: { presence: { key: 'ann' } } }).on('presence', { event: 'sync' }, () => {})
  await subscribed(coming)
  check((await coming.track({ mood: 'glad' })) === 'ok', 'track')
  await until('ann is there', () => watching.presenceState().ann?.[0]?.mood === 'glad')
  check((await coming.track({ mood: 'sad' })) === 'ok', 'track again')
  await until('ann is sad, once', () => watching.presenceState().ann?.length === 1 && watching.presenceState().ann[0].mood === 'sad')
  check((await watching.track({})) === 'ok', 'track of bob')
  await until('ann sees bob', () => coming.presenceState().bob?.length === 1)
  check((await coming.untrack()) === 'ok', 'untrack')
  await until('ann has left', () => !watching.presenceState().ann)
  check(joins.some((p) => p.key === 'ann') && leaves.some((p) => p.key === 'ann'), 'events', joins, leaves)
  await Promise.all([ann, bob].map((c) => c.removeAllChannels()))
}

async function tokens() {
  const client = open()
  client.realtime.setAuth('nobody')
  const statuses = await subscribed(client.channel('refused'), 'CHANNEL_ERROR')
  check(statuses.some((s) => s.includes('Unauthorized')), 'the reason', statuses)
  await client.realtime.disconnect()
}

for (const part of [changes, reconnect, broadcast, presence, tokens]) {
  await part()
  console.log(part.name)
}
process.exit(0)
