// The live tail: pausing it, keeping it short, and saying how it is.
'use strict'
;(() => {
  const most = 200 // rows that a page keeps
  const held = [] // what came while paused
  let paused = false
  let missed = 0 // rows that came while paused and are not kept either
  const id = (name) => document.getElementById(name)

  const state = (word, text) => {
    const pill = id('tail-state')
    if (!pill || pill.textContent === text) return
    pill.hidden = false
    pill.className = 'pill ' + word
    pill.textContent = text
  }
  const shorten = () => {
    const rows = id('tail').rows
    while (rows.length > most) rows[rows.length - 1].remove()
    const idle = document.querySelector('.tail .idle')
    if (idle && rows.length) idle.remove()
  }
  const rowsIn = (text) => text.split('<tr').length - 1
  const waiting = () => {
    const n = missed + held.reduce((sum, text) => sum + rowsIn(text), 0)
    id('tail-waiting').textContent = paused && n ? n.toLocaleString() + (n === 1 ? ' row waits' : ' rows wait') : ''
  }

  // A connection that the browser gave up is made anew by the extension, from the address
  // in the page: it has to be the place that the page is at.
  const arrive = (event) => {
    const box = document.querySelector('[sse-connect]')
    const at = event.detail.lastEventId
    if (!box || !at) return
    const url = new URL(box.getAttribute('sse-connect'), location.href)
    url.searchParams.set('after', at)
    box.setAttribute('sse-connect', url.pathname + url.search)
  }

  document.addEventListener('htmx:sseBeforeMessage', (event) => {
    if (event.target.id !== 'tail') return
    arrive(event)
    state(paused ? 'warn' : 'ok', paused ? 'paused' : 'live')
    if (!paused) return
    event.preventDefault()
    held.push(event.detail.data)
    let kept = held.reduce((sum, text) => sum + rowsIn(text), 0)
    while (held.length > 1 && kept > most) {
      const n = rowsIn(held.shift())
      kept -= n
      missed += n
    }
    waiting()
  })
  document.addEventListener('htmx:sseMessage', (event) => {
    if (event.target.id !== 'tail') return
    id('tail').classList.toggle('calm', rowsIn(event.detail.data) < 5) // a flood does not flash
    shorten()
  })
  document.addEventListener('htmx:sseOpen', () => state(paused ? 'warn' : 'ok', paused ? 'paused' : 'live'))
  document.addEventListener('htmx:sseError', () => state('warn', 'reconnecting'))

  const pause = (button) => {
    paused = !paused
    button.setAttribute('aria-pressed', String(paused))
    button.textContent = paused ? 'Go on' : 'Pause'
    state(paused ? 'warn' : 'ok', paused ? 'paused' : 'live')
    if (!paused) {
      for (const text of held.splice(0)) htmx.swap(id('tail'), text, { swapStyle: 'afterbegin' })
      missed = 0
      shorten()
    }
    waiting()
  }
  const begin = () => {
    const button = id('tail-pause')
    if (!button) return
    button.hidden = false
    state('quiet', 'connecting')
    button.addEventListener('click', () => pause(button))
  }
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', begin)
  else begin()
})()
