// Sends one span, one log record and one metric by the official SDK: node send.js PROTOCOL PORT COMPRESSION
// Prints, as JSON, what the test cannot know: ids and times.
import { SpanKind, SpanStatusCode, trace, ROOT_CONTEXT } from "@opentelemetry/api";
import { SeverityNumber } from "@opentelemetry/api-logs";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { LoggerProvider, SimpleLogRecordProcessor } from "@opentelemetry/sdk-logs";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { BasicTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const [protocol, port, compression] = process.argv.slice(2);
const packages = { grpc: "grpc", "http/protobuf": "proto", "http/json": "http" };
const load = (signal) => import(`@opentelemetry/exporter-${signal}-otlp-${packages[protocol]}`);
const { OTLPTraceExporter } = await load("trace");
const { OTLPLogExporter } = await load("logs");
const { OTLPMetricExporter } = await load("metrics");
const options = (signal) => ({
  url: `http://127.0.0.1:${port}` + (protocol === "grpc" ? "" : `/v1/${signal}`),
  compression,
});

const resource = resourceFromAttributes({ "service.name": `node-${protocol}-${compression}` });
const tracing = new BasicTracerProvider({
  resource,
  spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter(options("traces")))],
});
const logging = new LoggerProvider({
  resource,
  processors: [new SimpleLogRecordProcessor({ exporter: new OTLPLogExporter(options("logs")) })],
});
const meters = new MeterProvider({
  resource,
  readers: [new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter(options("metrics")) })],
});

const start = [1795333477, 123456789];
const span = tracing.getTracer("shop", "1.2").startSpan("checkout", {
  kind: SpanKind.SERVER,
  startTime: start,
  attributes: { text: "a “b” 😀", whole: 42, large: 9007199254740991, real: 1.5, yes: true, list: ["a", "b"] },
});
span.addEvent("paid", { amount: 12.5 }, [1795333477, 223456789]);
span.setStatus({ code: SpanStatusCode.ERROR, message: "too late" });
span.end([1795333478, 1]);
const context = trace.setSpan(ROOT_CONTEXT, span);
logging.getLogger("shop", "1.2").emit({
  eventName: "order.paid",
  severityNumber: SeverityNumber.WARN,
  severityText: "WARN",
  timestamp: start,
  body: { order: 7, items: ["tea", { n: 2 }] },
  attributes: { nested: { deep: [1, "two"] } },
  context,
});
const meter = meters.getMeter("shop", "1.2");
meter.createCounter("orders", { unit: "1" }).add(3, { kind: "tea" });
meter.createHistogram("wait", { advice: { explicitBucketBoundaries: [1, 10] } }).record(2.5);
await Promise.all([tracing.shutdown(), logging.shutdown(), meters.shutdown()]);
const { traceId, spanId } = span.spanContext();
console.log(JSON.stringify({ traceId, spanId }));
