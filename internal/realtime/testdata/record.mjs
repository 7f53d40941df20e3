// Records what one client and the server say to each other. Arguments: the folder of
// the packages, the package, the server's URL. The trace goes to standard output:
// > is the client, < the server, + a change of the database; b is base64.
import { control, current, opener, subscribed, until, ws } from './client.mjs'

const lines = []
const note = (sign, data) => lines.push(typeof data === 'string' ? `${sign} ${data}` : `${sign}b ${Buffer.from(data).toString('base64')}`)

class Recorder extends ws {
  constructor(...args) {
    super(...args)
    this.on('message', (data, binary) => note('<', binary ? data : data.toString()))
  }
  send(data, ...rest) {
    note('>', data)
    super.send(data, ...rest)
  }
}

const client = opener(Recorder)()
const answered = async (what, count = 1) => {
  const from = lines.length
  await what()
  await until('the answer', () => lines.slice(from).filter((l) => l.startsWith('<')).length >= count)
}
const change = async (body) => {
  lines.push(`+ ${JSON.stringify(body)}`)
  await answered(() => control('change', body))
}

const channel = client
  .channel('default', { config: { broadcast: { self: true, ack: true }, presence: { key: 'u1', enabled: true } } })
  .on('postgres_changes', { event: '*', schema: 'public', table: 'orders', filter: 'amount=gt.100' }, () => {})
  .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'orders' }, () => {})
  .on('presence', { event: 'sync' }, () => {})
  .on('broadcast', { event: '*' }, () => {})
await answered(() => subscribed(channel), 3)
await change({ record: { id: 1, amount: '100.50', status: 'a' } })
await change({ record: { id: 2, amount: '1' } })
await change({ action: 'update', record: { id: 1, amount: '200', status: 'a' }, changes: { amount: '100.50' } })
await change({ action: 'delete', record: { id: 1, amount: '200' } })
await answered(() => channel.send({ type: 'broadcast', event: 'shout', payload: { text: 'héllo' } }), 2)
if (current) await answered(() => channel.send({ type: 'broadcast', event: 'raw', payload: new Uint8Array([0, 255]).buffer }), 2)
await answered(() => channel.track({ name: 'ann' }), 2)
await answered(() => channel.untrack(), 2)
await answered(() => (current ? client.realtime.sendHeartbeat() : client.realtime._sendHeartbeat()))
await client.realtime.setAuth('reader2')
await answered(() => channel.unsubscribe(), 2)
console.log(lines.join('\n'))
process.exit(0)
