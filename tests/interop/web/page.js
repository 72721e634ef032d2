// A page with OpenTelemetry's own browser packages, as their documentation sets them up.
// The collector's address is in the global `COLLECTOR`.
import {ZoneContextManager} from '@opentelemetry/context-zone'
import {logs} from '@opentelemetry/api-logs'
import {ErrorsInstrumentation} from '@opentelemetry/browser-instrumentation/experimental/errors'
import {NavigationInstrumentation} from '@opentelemetry/browser-instrumentation/experimental/navigation'
import {UserActionInstrumentation} from '@opentelemetry/browser-instrumentation/experimental/user-action'
import {WebVitalsInstrumentation} from '@opentelemetry/browser-instrumentation/experimental/web-vitals'
import {OTLPLogExporter} from '@opentelemetry/exporter-logs-otlp-http'
import {OTLPTraceExporter} from '@opentelemetry/exporter-trace-otlp-http'
import {registerInstrumentations} from '@opentelemetry/instrumentation'
import {FetchInstrumentation} from '@opentelemetry/instrumentation-fetch'
import {resourceFromAttributes} from '@opentelemetry/resources'
import {LoggerProvider, SimpleLogRecordProcessor} from '@opentelemetry/sdk-logs'
import {SimpleSpanProcessor, WebTracerProvider} from '@opentelemetry/sdk-trace-web'

const resource = resourceFromAttributes({'service.name': 'official', 'telemetry.sdk.language': 'webjs'})
const headers = window.KEY ? {'engram-key': window.KEY} : {}
const traces = new WebTracerProvider({
  resource,
  spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter({url: `${COLLECTOR}/v1/traces`, headers}))]
})
traces.register({contextManager: new ZoneContextManager()})
const said = new LoggerProvider({
  resource,
  processors: [new SimpleLogRecordProcessor({exporter: new OTLPLogExporter({url: `${COLLECTOR}/v1/logs`, headers})})]
})
logs.setGlobalLoggerProvider(said)
registerInstrumentations({
  tracerProvider: traces,
  loggerProvider: said,
  instrumentations: [
    new FetchInstrumentation(),
    new ErrorsInstrumentation(),
    new NavigationInstrumentation(),
    new UserActionInstrumentation(),
    new WebVitalsInstrumentation()
  ]
})
document.title = 'instrumented'
