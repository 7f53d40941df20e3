// What pages need of a browser beyond htmx: copying, the banner when the node is away,
// charts, and a tail that can be paused. Pages are read without it.
'use strict'
window.lockstep = (() => {
  const visible = () => document.visibilityState === 'visible' && !document.body.dataset.paused
  const language = (() => {
    try { return new Intl.NumberFormat(navigator.language).resolvedOptions().locale } catch { return 'en' }
  })()

  // Copying: the text of the pre beside the button.
  document.addEventListener('click', async (event) => {
    const button = event.target.closest('[data-copy]')
    if (!button) return
    const text = button.parentElement.querySelector('pre, code').textContent
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      const range = document.createRange()
      range.selectNodeContents(button.parentElement.querySelector('pre, code'))
      getSelection().removeAllRanges()
      getSelection().addRange(range)
      document.execCommand('copy')
    }
    if (button.dataset.was) return // it says so already
    button.dataset.was = button.textContent
    button.textContent = 'Copied'
    setTimeout(() => { button.textContent = button.dataset.was; delete button.dataset.was }, 1200)
  })

  // Forms that are dangerous ask first, in the words of data-ask.
  document.addEventListener('submit', (event) => {
    const ask = (event.submitter && event.submitter.dataset.ask) || event.target.dataset.ask
    if (ask && !confirm(ask)) event.preventDefault()
  })

  // A checkbox with data-all switches those of its form.
  document.addEventListener('change', (event) => {
    if (!event.target.matches('[data-all]')) return
    for (const box of event.target.form.querySelectorAll('input[type=checkbox][name]')) box.checked = event.target.checked
  })

  // A page that nobody looks at, or that its reader paused, asks for nothing.
  document.addEventListener('htmx:beforeRequest', (event) => {
    if (event.detail.elt.matches('#live, .live') && !visible()) event.preventDefault()
  })

  // The node is away, or back.
  const lost = (away) => { const p = document.getElementById('lost'); if (p) p.hidden = !away }
  document.addEventListener('htmx:sendError', () => lost(true))
  document.addEventListener('htmx:timeout', () => lost(true))
  document.addEventListener('htmx:responseError', (event) => lost(event.detail.xhr.status >= 500))
  document.addEventListener('htmx:afterRequest', (event) => { if (event.detail.successful) lost(false) })
  // What a reader is using is left alone: an open details stays open, a field keeps its text.
  document.addEventListener('htmx:load', () => charts())
  if (window.Idiomorph) {
    Idiomorph.defaults.ignoreActiveValue = true
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === 'open' && node.tagName === 'DETAILS')
  }

  // Charts: <figure class="chart" data-chart="address"> is drawn from JSON
  // {"at": [seconds], "series": [{"label", "values"}], "unit": "bytes" or a word}.
  const drawn = new WeakMap()
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
  const short = (v, unit) => {
    if (v === null || v === undefined) return '–'
    if (unit === 'bytes') {
      let i = 0
      for (; Math.abs(v) >= 1000 && i < 4; i++) v /= 1000
      return v.toLocaleString(language, { maximumFractionDigits: v < 10 && i ? 1 : 0 }) + ' ' + ['B', 'kB', 'MB', 'GB', 'TB'][i]
    }
    return v.toLocaleString(language, { notation: Math.abs(v) >= 10000 ? 'compact' : 'standard', maximumFractionDigits: Math.abs(v) < 10 ? 1 : 0 }) + (unit ? ' ' + unit : '')
  }
  // Times are written as everywhere on the pages: in UTC, of 24 hours.
  const clock = (seconds, digits) => new Date(seconds * 1000).toISOString().slice(11, digits)
  const options = (figure, data) => {
    const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' }
    return {
      width: figure.clientWidth, height: Number(figure.dataset.height || 160), padding: [8, 24, 0, 0], tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), 'UTC'),
      cursor: { points: { size: 6 }, y: false }, legend: { live: true },
      scales: { y: { range: (u, low, high) => [0, Math.max(high || 0, 1) * 1.1] } },
      axes: [{ ...axis, space: 80, size: 24, values: (u, list, i, space, step) => list.map((v) => clock(v, step < 60 ? 19 : 16)) }, { ...axis, size: 64, space: 36, values: (u, list) => list.map((v) => short(v, data.unit)) }],
      series: [{ label: 'UTC', value: (u, v) => v ? clock(v, 19) : '–' }].concat(data.series.map((s, i) => ({
        label: s.label, width: 1.5, stroke: colour('--series-' + (i % 6 + 1)), fill: data.series.length === 1 ? colour('--series-fill') : undefined,
        spanGaps: false, points: { show: false }, value: (u, v) => short(v, data.unit),
      }))),
    }
  }
  const draw = async (figure) => {
    let data
    try {
      const answer = await fetch(figure.dataset.chart, { headers: { Accept: 'application/json' } })
      if (!answer.ok) return
      data = await answer.json()
    } catch { return }
    figure.toggleAttribute('data-empty', data.series.length === 0)
    if (data.series.length === 0) return // there is nothing to draw: what stands in its place stays
    data.series.sort((a, b) => a.label < b.label ? -1 : 1) // each keeps its colour, whoever has the most
    const values = [data.at, ...data.series.map((s) => s.values)]
    const names = data.series.map((s) => s.label).join('\n')
    const old = drawn.get(figure)
    if (old && old.names === names) { old.plot.setData(values); return }
    if (old) old.plot.destroy()
    figure.querySelector('.wait')?.remove()
    drawn.set(figure, { names, plot: new uPlot(options(figure, data), values, figure) })
  }
  const charts = () => {
    for (const figure of document.querySelectorAll('figure[data-chart]')) if (!drawn.has(figure)) { drawn.set(figure, undefined); draw(figure) }
  }
  setInterval(() => { if (visible()) document.querySelectorAll('figure[data-chart]').forEach(draw) }, 10000)
  addEventListener('resize', () => {
    for (const figure of document.querySelectorAll('figure[data-chart]')) {
      const it = drawn.get(figure)
      if (it) it.plot.setSize({ width: figure.clientWidth, height: Number(figure.dataset.height || 160) })
    }
  })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    for (const figure of document.querySelectorAll('figure[data-chart]')) {
      const it = drawn.get(figure)
      if (it) { it.plot.destroy(); drawn.delete(figure) }
    }
    charts()
  })
  document.addEventListener('DOMContentLoaded', charts)
  return { visible }
})()
