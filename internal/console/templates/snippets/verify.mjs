// Node, no package. headers: those of the request (names in lower case).
// body: a Buffer with the bytes that came, before anything parsed them. secret: whsec_…
import { createHmac, timingSafeEqual } from 'node:crypto'

export function verify(headers, body, secret) {
  const id = headers['webhook-id']
  const timestamp = headers['webhook-timestamp']
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300)) {
    throw new Error('the request is too old, or a clock is wrong')
  }
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  const want = Buffer.from('v1,' + createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64'))
  const good = String(headers['webhook-signature']).split(' ').map((s) => Buffer.from(s))
    .some((one) => one.length === want.length && timingSafeEqual(one, want))
  if (!good) throw new Error('no signature matches')
}
