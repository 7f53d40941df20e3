// Makes ../openapi.json, the part of Stripe's OpenAPI document that the simulator
// speaks, from the whole of it:
//
//   node prune.mjs spec3.json > ../openapi.json
//
// The document (spec3.json) is in the Go module github.com/stripe/stripe-mock,
// folder embedded/openapi, and in the repository github.com/stripe/openapi; its
// licence is MIT. Descriptions go, and of an expandable field only the id stays,
// with the names of what it may be expanded to.
import { readFileSync } from 'node:fs'

const spec = JSON.parse(readFileSync(process.argv[2], 'utf8'))

const paths = `
/v1/account
/v1/customers /v1/customers/{customer} /v1/customers/{customer}/payment_methods
/v1/products /v1/products/{id}
/v1/prices /v1/prices/{price}
/v1/plans /v1/plans/{plan}
/v1/subscriptions /v1/subscriptions/{subscription_exposed_id}
/v1/subscription_items /v1/subscription_items/{item}
/v1/invoices /v1/invoices/{invoice} /v1/invoices/{invoice}/lines /v1/invoices/{invoice}/finalize
/v1/invoices/{invoice}/pay /v1/invoices/{invoice}/void /v1/invoices/create_preview
/v1/invoice_payments /v1/invoice_payments/{invoice_payment}
/v1/invoiceitems /v1/invoiceitems/{invoiceitem}
/v1/charges /v1/charges/{charge} /v1/charges/{charge}/refunds
/v1/payment_intents /v1/payment_intents/{intent} /v1/payment_intents/{intent}/confirm /v1/payment_intents/{intent}/cancel
/v1/refunds /v1/refunds/{refund}
/v1/balance /v1/balance_transactions /v1/balance_transactions/{id}
/v1/payouts /v1/payouts/{payout}
/v1/disputes /v1/disputes/{dispute} /v1/disputes/{dispute}/close
/v1/coupons /v1/coupons/{coupon}
/v1/promotion_codes /v1/promotion_codes/{promotion_code}
/v1/credit_notes /v1/credit_notes/{id} /v1/credit_notes/{credit_note}/lines /v1/credit_notes/{id}/void
/v1/checkout/sessions /v1/checkout/sessions/{session} /v1/checkout/sessions/{session}/line_items /v1/checkout/sessions/{session}/expire
/v1/tax_rates /v1/tax_rates/{tax_rate}
/v1/setup_intents /v1/setup_intents/{intent} /v1/setup_intents/{intent}/confirm /v1/setup_intents/{intent}/cancel
/v1/payment_methods /v1/payment_methods/{payment_method} /v1/payment_methods/{payment_method}/attach /v1/payment_methods/{payment_method}/detach
/v1/events /v1/events/{id}
`.trim().split(/\s+/)

const kept = ['type', 'enum', 'format', 'maxLength', 'nullable', 'required', 'additionalProperties', '$ref']
const wanted = new Set()

function prune(s) {
  if (s === null || typeof s !== 'object') return s
  const out = {}
  for (const k of kept) if (s[k] !== undefined) out[k] = typeof s[k] === 'object' && !Array.isArray(s[k]) ? prune(s[k]) : s[k]
  if (s.$ref) wanted.add(s.$ref.split('/').pop())
  if (s['x-expansionResources']) {
    // Only the id, or null: what it expands to would pull in all of Stripe.
    out.type = 'string'
    out.expands = s['x-expansionResources'].oneOf.map((r) => r.$ref.split('/').pop())
    return out
  }
  if (s.anyOf) out.anyOf = s.anyOf.map(prune)
  if (s.items) out.items = prune(s.items)
  if (s.properties) out.properties = Object.fromEntries(Object.entries(s.properties).map(([k, v]) => [k, prune(v)]))
  return out
}

function operation(op) {
  const out = { query: {}, body: undefined, answer: undefined }
  for (const p of op.parameters ?? []) if (p.in === 'query') out.query[p.name] = { ...prune(p.schema), ...(p.required ? { must: true } : {}) }
  const form = op.requestBody?.content?.['application/x-www-form-urlencoded']?.schema
  if (form && Object.keys(form.properties ?? {}).length) out.body = prune(form)
  out.answer = prune(op.responses['200'].content['application/json'].schema)
  return out
}

const out = { version: spec.info.version, paths: {}, schemas: {} }
for (const p of paths) {
  if (!spec.paths[p]) throw new Error('no path ' + p)
  out.paths[p] = {}
  for (const [m, op] of Object.entries(spec.paths[p])) if (['get', 'post', 'delete'].includes(m)) out.paths[p][m] = operation(op)
}
for (const n of process.argv.slice(3)) wanted.add(n)
wanted.add('error'), wanted.add('tax_id').add('discount')
for (let more = true; more; ) {
  more = false
  for (const name of wanted) {
    if (out.schemas[name]) continue
    out.schemas[name] = prune(spec.components.schemas[name])
    more = true
  }
}
process.stdout.write(JSON.stringify(out) + '\n')
