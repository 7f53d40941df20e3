// A tour of the simulator with Stripe's own client for Node (npm install stripe@23.1.0):
//
//   node tour.mjs http://127.0.0.1:12111
//
// It fails at the first thing that the client does not take for Stripe.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const Stripe = createRequire(join(process.env.STRIPE_SDK ?? process.cwd(), 'x.js'))('stripe')
const base = new URL(process.argv[2])
const client = (key, more = {}) =>
  new Stripe(key, { host: base.hostname, port: base.port, protocol: 'http', maxNetworkRetries: 3, telemetry: false, ...more })
const stripe = client('sk_test_4eC39HqLyjWDarjtT1zdp7dc')
const control = (path, body) => fetch(new URL('/_sandbox/' + path, base), { method: 'POST', body: JSON.stringify(body) })
const caught = async (promise) => {
  try {
    await promise
  } catch (e) {
    return e
  }
  assert.fail('should have failed')
}

const steps = {
  async 'auto-paging reads every customer once, newest first'() {
    const seen = []
    for await (const c of stripe.customers.list({ limit: 7 })) seen.push(c)
    const truth = (await (await fetch(new URL('/_sandbox/state/customer', base))).text()).trim().split('\n').map((l) => JSON.parse(l).id)
    assert.deepEqual(seen.map((c) => c.id), truth.reverse())
    assert.ok(seen.every((c, i) => i === 0 || c.created <= seen[i - 1].created))
  },
  async 'a customer is created, found, changed, and deleted'() {
    const made = await stripe.customers.create({ email: 'a@b.example', metadata: { k: 'v' }, address: { city: 'Bern', country: 'CH' } })
    assert.equal(made.address.city, 'Bern')
    const changed = await stripe.customers.update(made.id, { name: 'Ana', metadata: { k: '', other: '1' } })
    assert.deepEqual(changed.metadata, { other: '1' })
    assert.deepEqual((await stripe.customers.list({ email: 'a@b.example' })).data.map((c) => c.id), [made.id])
    const events = await stripe.events.list({ types: ['customer.created', 'customer.updated'], limit: 2 })
    assert.equal(events.data.find((e) => e.type === 'customer.updated').data.previous_attributes.name, null)
    assert.deepEqual(await stripe.customers.del(made.id), { id: made.id, object: 'customer', deleted: true })
    assert.equal((await stripe.customers.retrieve(made.id)).deleted, true)
  },
  async 'errors come as the classes that the client has for them'() {
    assert.ok((await caught(stripe.customers.retrieve('cus_nobody'))) instanceof Stripe.errors.StripeInvalidRequestError)
    const unknown = await caught(stripe.customers.create({ nonsense: 1 }))
    assert.equal(unknown.code, 'parameter_unknown')
    assert.ok((await caught(client('sk_wrong').customers.list())) instanceof Stripe.errors.StripeAuthenticationError)
    const declined = await caught(stripe.paymentIntents.create({ amount: 500, currency: 'usd', payment_method: 'pm_card_chargeDeclined', confirm: true,
      automatic_payment_methods: { enabled: true, allow_redirects: 'never' } }))
    assert.ok(declined instanceof Stripe.errors.StripeCardError)
    assert.equal(declined.decline_code, 'generic_decline')
    assert.equal(declined.payment_intent.status, 'requires_payment_method')
  },
  async 'a customer subscribes, is billed, pays, is refunded, and cancels'() {
    const customer = await stripe.customers.create({ payment_method: 'pm_card_visa' })
    const product = await stripe.products.create({ name: 'Lamp', default_price_data: { currency: 'usd', unit_amount: 1200, recurring: { interval: 'month' } } })
    const sub = await stripe.subscriptions.create({ customer: customer.id, items: [{ price: product.default_price, quantity: 2 }],
      expand: ['latest_invoice.payments.data.payment.payment_intent', 'customer'] })
    assert.equal(sub.status, 'active')
    assert.equal(sub.customer.id, customer.id)
    assert.equal(sub.latest_invoice.amount_paid, 2400)
    const charge = await stripe.charges.retrieve(sub.latest_invoice.payments.data[0].payment.payment_intent.latest_charge)
    assert.equal(charge.paid, true)
    const refund = await stripe.refunds.create({ charge: charge.id, amount: 400, expand: ['charge.balance_transaction'] })
    assert.equal(refund.charge.amount_refunded, 400)
    assert.equal(refund.charge.balance_transaction.net, 2400 - 69 - 30)
    const preview = await stripe.invoices.createPreview({ subscription: sub.id })
    assert.ok(preview.lines.data[0].id.startsWith('il_tmp_'))
    assert.equal((await stripe.subscriptions.cancel(sub.id)).status, 'canceled')
    assert.deepEqual((await stripe.subscriptions.list({ customer: customer.id })).data, [])
    assert.equal((await stripe.subscriptions.list({ customer: customer.id, status: 'all' })).data.length, 1)
    assert.equal((await caught(stripe.invoices.createPreview({ customer: customer.id }))).code, 'invoice_upcoming_none')
  },
  async 'nested lists are read to their end'() {
    const customer = await stripe.customers.create({})
    const product = await stripe.products.create({ name: 'Many' })
    const price = await stripe.prices.create({ product: product.id, currency: 'usd', unit_amount: 5, recurring: { interval: 'year' } })
    const sub = await stripe.subscriptions.create({ customer: customer.id, items: Array.from({ length: 20 }, () => ({ price: price.id })) })
    assert.equal(sub.items.data.length, 10)
    assert.equal(sub.items.has_more, true)
    const items = await stripe.subscriptionItems.list({ subscription: sub.id, limit: 3 }).autoPagingToArray({ limit: 100 })
    assert.equal(items.length, 20)
    const lines = await stripe.invoices.listLineItems(sub.latest_invoice, { limit: 9 }).autoPagingToArray({ limit: 100 })
    assert.equal(lines.length, 20)
  },
  async 'expand reaches into lists'() {
    const charges = await stripe.charges.list({ limit: 3, expand: ['data.customer', 'data.balance_transaction.source', 'data.refunds'] })
    for (const c of charges.data) {
      if (c.balance_transaction) assert.equal(c.balance_transaction.source.id, c.id)
      assert.equal(c.refunds.object, 'list')
    }
    assert.match((await caught(stripe.charges.list({ expand: ['customer'] }))).message, /data\.customer/)
  },
  async 'an idempotency key makes one customer of two calls'() {
    const options = { idempotencyKey: 'tour-' + Date.now() }
    const [one, two] = [await stripe.customers.create({ name: 'Once' }, options), await stripe.customers.create({ name: 'Once' }, options)]
    assert.equal(one.id, two.id)
    assert.ok((await caught(stripe.customers.create({ name: 'Twice' }, options))) instanceof Stripe.errors.StripeIdempotencyError)
  },
  async 'the client gets through errors, resets and limits by itself'() {
    await control('faults', [{ kind: 'status', status: 503, path: '^/v1/products$', nth: 1 }, { kind: 'reset', path: '^/v1/coupons$', nth: 1 }])
    await stripe.products.list()
    await stripe.coupons.list()
    await control('limits', { off: false, limits: [{ name: 'endpoint-rate', rate: 2 }] })
    const lists = await Promise.all(Array.from({ length: 4 }, () => stripe.taxRates.list({ limit: 1 })))
    assert.equal(lists.length, 4)
    await control('limits', { off: true })
    const summary = await (await fetch(new URL('/_sandbox/summary', base))).json()
    assert.ok(summary.limited['endpoint-rate'] > 0)
  },
  async 'everything else answers too'() {
    assert.ok((await stripe.accounts.retrieveCurrent()).id.startsWith('acct_'))
    assert.equal((await stripe.balance.retrieve()).object, 'balance')
    const coupon = await stripe.coupons.create({ percent_off: 25, duration: 'once' })
    await stripe.promotionCodes.create({ promotion: { type: 'coupon', coupon: coupon.id } })
    await stripe.coupons.del(coupon.id)
    const rate = await stripe.taxRates.create({ display_name: 'VAT', inclusive: false, percentage: 7.7 })
    assert.equal((await stripe.taxRates.update(rate.id, { active: false })).active, false)
    const customer = await stripe.customers.create({})
    const setup = await stripe.setupIntents.create({ customer: customer.id, payment_method: 'pm_card_mastercard', confirm: true,
      automatic_payment_methods: { enabled: true, allow_redirects: 'never' } })
    assert.equal(setup.status, 'succeeded')
    await stripe.invoiceItems.create({ customer: customer.id, amount: 700, currency: 'usd', description: 'Extra' })
    const draft = await stripe.invoices.create({ customer: customer.id, pending_invoice_items_behavior: 'include' })
    assert.equal(draft.amount_due, 700)
    const paid = await stripe.invoices.pay((await stripe.invoices.finalizeInvoice(draft.id)).id)
    assert.equal(paid.status, 'paid')
    const note = await stripe.creditNotes.create({ invoice: paid.id, amount: 300, reason: 'order_change' })
    assert.equal((await stripe.creditNotes.voidCreditNote(note.id)).status, 'void')
    const price = (await stripe.prices.list({ limit: 1 })).data[0]
    const session = await stripe.checkout.sessions.create({ mode: 'subscription', success_url: 'https://x.example', line_items: [{ price: price.id, quantity: 1 }] })
    assert.equal((await stripe.checkout.sessions.listLineItems(session.id)).data.length, 1)
    assert.equal((await stripe.checkout.sessions.expire(session.id)).status, 'expired')
    for (const list of ['payouts', 'disputes', 'invoicePayments', 'plans', 'balanceTransactions', 'paymentMethods', 'refunds']) {
      assert.equal((await stripe[list].list({ limit: 1 })).object, 'list')
    }
  },
}

for (const [name, step] of Object.entries(steps)) {
  const began = Date.now()
  try {
    await step()
    console.log('ok   ' + name + ' (' + (Date.now() - began) + ' ms)')
  } catch (e) {
    console.log('FAIL ' + name)
    console.log(e)
    process.exit(1)
  }
}
// The client keeps a timer of 80 s for each request that broke.
process.exit(0)
