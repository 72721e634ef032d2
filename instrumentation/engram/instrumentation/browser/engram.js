// What happens in a page, as OTLP logs with the event names of OpenTelemetry's browser packages.
// <script src="http://127.0.0.1:4318/engram.js" data-service="shop" defer></script>
// Served without comments and indentation (__init__.py): keep comments on lines of their own.
(() => {
// A second copy on the same page would report everything twice.
if (window.engram) return
const settings = document.currentScript?.dataset || {}
const source = document.currentScript?.src || location.href
const endpoint = (settings.endpoint || new URL(source).origin) + '/v1/logs'
const send = window.fetch
const hex = size => [...crypto.getRandomValues(new Uint8Array(size))].map(byte => byte.toString(16).padStart(2, '0')).join('')

// Nothing of ours may break the page: every function that the page can reach is wrapped.
const safe = work => function (...given) {
  try { return work.apply(this, given) } catch {}
}
const on = (target, name, work) => target.addEventListener(name, safe(work), true)

// OTLP/JSON values, cut to a bounded size.
const value = (it, depth = 0) =>
  typeof it == 'boolean' ? {boolValue: it} :
  typeof it == 'number' && isFinite(it) ? {doubleValue: it} :
  typeof it != 'object' || depth > 4 ? {stringValue: String(it).slice(0, 4096)} :
  Array.isArray(it) ? {arrayValue: {values: it.slice(0, 64).map(one => value(one, depth + 1))}} :
  {kvlistValue: {values: pairs(it, depth + 1)}}
const pairs = (object, depth) => Object.entries(object).slice(0, 64)
  .filter(([, it]) => it != null).map(([key, it]) => ({key, value: value(it, depth)}))

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
const [, traceId, spanId] = /^00-(\w{32})-(\w{16})/.exec(told) || [0, hex(16)]

let queue = [], timer, wait = 1e3, count = 0
const later = () => timer ||= setTimeout(flush, wait)
const flush = safe(() => {
  clearTimeout(timer)
  timer = 0
  while (queue.length) {
    const logRecords = queue.splice(0, 20)
    const body = JSON.stringify({resourceLogs: [{
      resource: {attributes: pairs({
        'service.name': settings.service || 'web',
        'telemetry.sdk.language': 'webjs',
        'browser.language': navigator.language
      })},
      scopeLogs: [{scope: {name: 'engram.browser'}, logRecords}]
    }]})
    const headers = {'content-type': 'application/json'}
    if (settings.key) headers['engram-key'] = settings.key
    // Keepalive outlives the page, but browsers refuse it for more than 64 KiB.
    // What could not be sent waits, the oldest 100; the collector knows a record that comes twice.
    const again = () => {
      queue = logRecords.concat(queue).slice(0, 100)
      wait = Math.min(wait * 2, 6e4)
      later()
    }
    send.call(window, endpoint, {method: 'POST', body, headers, credentials: 'omit', keepalive: body.length < 6e4})
      .then(answer => answer.status == 429 || answer.status > 501 ? again() : wait = 1e3, again)
  }
})

// Queries and fragments may hold tokens; a fragment that is a route may not.
const path = () => location.pathname + (/^#!?\/[^?&=]*/.exec(location.hash)?.[0] || '')
const emit = (eventName, attributes, severityNumber = 9) => {
  if (queue.length > 99) return
  touch()
  // The counter tells two equal events of one millisecond apart.
  const timeUnixNano = Date.now() + String(count++ % 1e6).padStart(6, '0')
  queue.push({
    timeUnixNano, severityNumber, eventName, traceId, spanId,
    attributes: pairs({
      ...attributes,
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
for (const [name, type] of [['pushState', 'push'], ['replaceState', 'replace']]) {
  const before = history[name]
  history[name] = function (...given) {
    const result = before.apply(this, given)
    safe(view)(type)
    return result
  }
}
on(window, 'popstate', () => view('traverse'))
on(window, 'hashchange', () => view('push'))

const action = (kind, element, data) => emit('browser.user_action.' + kind, {
  'browser.css_selector': element.localName + (element.hasAttribute('id') ? '#' + element.getAttribute('id') : ['', ...element.classList].join('.')),
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
    if ('engramRemember' in field.dataset && !/password|file/.test(field.type) &&
      !/pass|card|cc-|cvc|cvv|secret|token|one-time/i.test(field.name + ' ' + field.autocomplete) &&
      !/(\d[ -]?){13}/.test(field.value) && (field.checked || !/radio|checkbox/.test(field.type)))
      data['value.' + field.name] = field.value
  }
  action('submit', event.target, data)
})

const failed = (error, message) => emit('exception', {
  'exception.type': error?.name,
  'exception.message': String(error?.message || error || message),
  'exception.stacktrace': error?.stack
}, 17)
// A picture that does not load is an event of its element, not an error of the page.
on(window, 'error', event => event.target == window && failed(event.error, event.message))
on(window, 'unhandledrejection', event => failed(event.reason))

// Web vitals: the first two when they are known, the others when the page is left.
const vital = (name, amount, good, poor) => emit('browser.web_vital', {
  'browser.web_vital.name': name, 'browser.web_vital.value': +amount.toFixed(3),
  'browser.web_vital.rating': amount > poor ? 'poor' : amount > good ? 'needs-improvement' : 'good'
})
const observe = (type, work, more) => safe(() => new PerformanceObserver(safe(list => list.getEntries().forEach(work)))
  .observe({type, buffered: true, ...more}))()
let lcp, cls, ttfb, inp = 0, shift = 0, first = 0, last = 0, left
observe('paint', entry => entry.name == 'first-contentful-paint' && vital('FCP', entry.startTime, 1800, 3000))
// Chromium tells of the navigation twice.
observe('navigation', entry => { ttfb ||= !vital('TTFB', entry.responseStart, 800, 1800) })
observe('largest-contentful-paint', entry => { lcp = entry.startTime; cls ||= 0 })
// The worst burst of shifts: gaps under a second, five seconds at most.
observe('layout-shift', entry => {
  if (entry.hadRecentInput) return
  const at = entry.startTime
  if (at - last > 1e3 || at - first > 5e3) { shift = 0; first = at }
  last = at
  shift += entry.value
  cls = Math.max(cls || 0, shift)
})
observe('event', entry => { if (entry.interactionId) inp = Math.max(inp, entry.duration) }, {durationThreshold: 16})
const leave = () => {
  if (!left) {
    left = 1
    lcp && vital('LCP', lcp, 2500, 4000)
    cls != null && vital('CLS', cls, .1, .25)
    inp && vital('INP', inp, 200, 500)
  }
  flush()
}
on(document, 'visibilitychange', () => document.visibilityState == 'hidden' && leave())
on(window, 'pagehide', leave)

// Requests to the page's own server carry the trace on; others would need a preflight for it.
const mine = url => new URL(url, location.href).origin == location.origin
const parent = () => `00-${traceId}-${hex(8)}-01`
window.fetch = function (input, init) {
  safe(() => {
    if (!mine(input.url || input)) return
    const headers = new Headers(init?.headers || input.headers)
    if (headers.has('traceparent')) return
    headers.set('traceparent', parent())
    init = {...init, headers}
  })()
  return send.call(this, input, init)
}
const {open, send: post} = XMLHttpRequest.prototype
const traced = new WeakSet
XMLHttpRequest.prototype.open = function (method, url, ...more) {
  safe(() => traced[mine(url) ? 'add' : 'delete'](this))()
  return open.call(this, method, url, ...more)
}
XMLHttpRequest.prototype.send = function (body) {
  safe(() => traced.has(this) && this.setRequestHeader('traceparent', parent()))()
  return post.call(this, body)
}

window.engram = {
  event: safe((name, attributes) => emit(String(name), attributes)),
  identify: safe(user => { touch(); session.user = user == null ? user : String(user); keep() })
}
safe(view)('push')
})()
