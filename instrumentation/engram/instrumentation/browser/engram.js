// What happens in a page, as OTLP logs with the event names of OpenTelemetry's browser packages.
// <script src="http://127.0.0.1:4318/engram.js" data-service="shop" defer></script>
// Served without comments and indentation (__init__.py): keep comments on lines of their own.
(() => {
// A second copy on the same page would report everything twice.
if (window.engram) return
const script = document.currentScript
const settings = script?.dataset || {}
const door = (settings.endpoint || new URL(script?.src || location.href).origin) + '/v1/logs'
const send = window.fetch
const hex = size => Array.from(crypto.getRandomValues(new Uint8Array(size)), byte => (byte + 256).toString(16).slice(1)).join('')

// Nothing of ours may break the page: every function that the page can reach is wrapped.
const safe = work => function (...given) {
  try { return work.apply(this, given) } catch {}
}
// Theirs runs as before; ours runs around it and can neither stop it nor be seen.
const wrap = (owner, name, before, after) => {
  const theirs = owner[name]
  owner[name] = function (...given) {
    safe(before).apply(this, given)
    const result = theirs.apply(this, given)
    safe(after).apply(this, given)
    return result
  }
}
const on = (target, name, work) => target.addEventListener(name, safe(work), true)

// OTLP/JSON values, cut to a bounded size.
const typed = (it, depth = 0) =>
  typeof it == 'boolean' ? {boolValue: it} :
  Number.isFinite(it) ? {doubleValue: it} :
  typeof it != 'object' || depth > 4 ? {stringValue: String(it).slice(0, 4096)} :
  Array.isArray(it) ? {arrayValue: {values: it.slice(0, 64).map(one => typed(one, depth + 1))}} :
  {kvlistValue: {values: pairs(it, depth + 1)}}
const pairs = (object, depth) => Object.entries(object).slice(0, 64)
  .filter(([, it]) => it != null).map(([its, it]) => ({key: its, value: typed(it, depth)}))

// The session: of this tab, until 30 minutes without an event. Storage may be forbidden.
let session = {}
const touch = () => {
  safe(() => { session = JSON.parse(sessionStorage.engram) })()
  const now = Date.now()
  if (!(now - session.last < 18e5)) session = {id: hex(16), user: session.user}
  session.last = now
  keep()
}
const keep = safe(() => { sessionStorage.engram = JSON.stringify(session) })

// The trace of the server's answer, so that the page and its request are one story; or our own.
const told = document.querySelector('meta[name=traceparent]')?.content ||
  performance.getEntriesByType('navigation')[0]?.serverTiming?.find(one => one.name == 'traceparent')?.description
const [, trace, span] = /^00-(\w{32})-(\w{16})/.exec(told) || [0, hex(16)]

let queue = [], timer, wait = 1e3, count = 0, flying = 0
const later = () => timer ||= setTimeout(flush, wait)
const flush = safe(() => {
  timer = clearTimeout(timer)
  // Until the collector answers, each attempt waits twice as long as the one before.
  if (queue[0]) wait = Math.min(wait * 2, 6e4)
  // A collector that takes requests and never answers must not fill the page's memory.
  while (queue[0] && flying < 5) {
    flying++
    const batch = queue.splice(0, 20)
    const text = JSON.stringify({resourceLogs: [{
      resource: {attributes: pairs({
        'service.name': settings.service || 'web',
        'telemetry.sdk.language': 'webjs',
        'browser.language': navigator.language
      })},
      scopeLogs: [{scope: {name: 'engram.browser'}, logRecords: batch}]
    }]})
    const head = {'content-type': 'application/json'}
    if (settings.key) head['engram-key'] = settings.key
    // Keepalive outlives the page, but browsers refuse it for more than 64 KiB.
    send(door, {method: 'POST', body: text, headers: head, credentials: 'omit', keepalive: text.length < 6e4})
      .then(answer => answer.status == 429 || answer.status > 501, () => 1)
      .then(lost => {
        flying--
        // It waits, the oldest 100; the collector knows a record that comes twice.
        if (lost) queue = batch.concat(queue).slice(0, 100)
        else wait = 1e3
        queue[0] && later()
      })
  }
})

// Queries and fragments may hold tokens; a fragment that is a route may not.
const path = () => location.pathname + (/^#!?\/[^?&=]*/.exec(location.hash)?.[0] || '')
const emit = (name, more, severity = 9) => {
  if (queue.length > 99) return
  touch()
  // The counter tells two equal events of one millisecond apart.
  queue.push({
    timeUnixNano: Date.now() + String(1e6 + count++).slice(-6),
    severityNumber: severity, eventName: name, traceId: trace, spanId: span,
    attributes: pairs({
      ...more,
      'session.id': session.id, 'user.id': session.user,
      'url.full': location.origin + path(), 'url.path': path()
    })
  })
  later()
}

// Page views: the load, and each change of the path after it.
let seen
const view = type => {
  if (seen == path()) return
  emit('browser.navigation', {
    'browser.navigation.type': type,
    'browser.page.title': document.title, 'browser.referrer': document.referrer.split('?')[0]
  })
  seen = path()
}
for (const type of ['push', 'replace']) wrap(history, type + 'State', 0, () => view(type))
on(window, 'popstate', () => view('traverse'))
on(window, 'hashchange', () => view('push'))
// A page that was kept whole while another was shown.
on(window, 'pageshow', event => event.persisted && view('traverse', seen = 0))

const action = (kind, node, data) => emit('browser.user_action.' + kind, {
  'browser.css_selector': node.localName + (node.getAttribute('id') ? '#' + node.getAttribute('id') : ['', ...node.classList].join('.')),
  'browser.element.attributes': data
})
on(document, 'click', event => {
  const button = event.target.closest('a,button,[role=button]')
  action('click', button || event.target, {text: button?.innerText.slice(0, 80)})
})
// Names of fields; a value only where the page asks for it, and never a secret.
on(document, 'submit', event => {
  const data = {fields: []}
  for (const field of event.target.elements) {
    if (!field.name) continue
    data.fields.push(field.name)
    if ('engramRemember' in field.dataset &&
      !/^file|pass|card|cc-|cvc|cvv|secret|token|one-time|pin\b|otp\b|ssn/i.test([field.type, field.name, field.autocomplete]) &&
      !/(\d[ -]?){13}/.test(field.value) && (field.checked || !/radio|box/.test(field.type)))
      data['value.' + field.name] = field.value
  }
  action('submit', event.target, data)
})

const failed = (thrown, said) => emit('exception', {
  'exception.type': thrown?.name,
  'exception.message': String(thrown?.message || thrown || said),
  'exception.stacktrace': thrown?.stack
}, 17)
// A picture that does not load is an event of its element, not an error of the page.
on(window, 'error', event => event.target == window && failed(event.error, event.message))
on(window, 'unhandledrejection', event => failed(event.reason))

// Web vitals: the first two when they are known, the others when the page is left.
const vital = (name, amount, good, poor) => emit('browser.web_vital', {
  'browser.web_vital.name': name, 'browser.web_vital.value': +amount.toFixed(3),
  'browser.web_vital.rating': amount > poor ? 'poor' : amount > good ? 'needs-improvement' : 'good'
})
const observe = (kind, work) => safe(() => new PerformanceObserver(safe(list => list.getEntries().forEach(work)))
  .observe({type: kind, buffered: true, durationThreshold: 16}))()
let lcp, cls, ttfb, inp = 0, shift = 0, first = 0, recent = 0, left
observe('paint', entry => /content/.test(entry.name) && vital('FCP', entry.startTime, 1800, 3000))
// Chromium tells of the navigation twice.
observe('navigation', entry => { ttfb ||= !vital('TTFB', entry.responseStart, 800, 1800) })
observe('largest-contentful-paint', entry => { lcp = entry.startTime; cls ||= 0 })
// The worst burst of shifts: gaps under a second, five seconds at most.
observe('layout-shift', entry => {
  if (entry.hadRecentInput) return
  const at = entry.startTime
  if (at - recent > 1e3 || at - first > 5e3) { shift = 0; first = at }
  recent = at
  shift += entry.value
  cls = Math.max(cls || 0, shift)
})
observe('event', entry => { if (entry.interactionId) inp = Math.max(inp, entry.duration) })
const leave = () => {
  if (!left) {
    left = 1
    lcp && vital('LCP', lcp, 2500, 4000)
    cls != null && vital('CLS', cls, .1, .25)
    inp && vital('INP', inp, 200, 500)
  }
  flush()
}
on(document, 'visibilitychange', () => document.hidden && leave())
on(window, 'pagehide', leave)

// Requests to the page's own server carry the trace on; others would need a preflight for it.
const mine = url => new URL(url, location.href).origin == location.origin
const parent = () => '00-' + trace + '-' + hex(8) + '-01'
window.fetch = function (input, init) {
  safe(() => {
    if (!mine(input.url || input)) return
    const head = new Headers(init?.headers || input.headers)
    if (head.has('traceparent')) return
    head.set('traceparent', parent())
    init = {...init, headers: head}
  })()
  return send.call(this, input, init)
}
const traced = new WeakSet
const requests = XMLHttpRequest.prototype
wrap(requests, 'open', 0, function (method, url) { traced[mine(url) ? 'add' : 'delete'](this) })
wrap(requests, 'setRequestHeader', 0, function (name) { if (/traceparent/i.test(name)) traced.delete(this) })
wrap(requests, 'send', function () { if (traced.has(this)) this.setRequestHeader('traceparent', parent()) })

window.engram = {
  event: safe((name, more) => emit(name + '', more)),
  identify: safe(who => { touch(); session.user = who == null ? who : who + ''; keep() })
}
safe(view)('push')
})()
