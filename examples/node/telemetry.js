// OpenTelemetry as its own documentation says; only the endpoint is Engram's (OTEL_EXPORTER_OTLP_ENDPOINT).
//   OTEL_SERVICE_NAME=tickets OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 npm start
const { NodeSDK } = require("@opentelemetry/sdk-node");
const { BatchLogRecordProcessor } = require("@opentelemetry/sdk-logs");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-proto");
const { OTLPLogExporter } = require("@opentelemetry/exporter-logs-otlp-proto");

const sdk = new NodeSDK({
  traceExporter: new OTLPTraceExporter(),
  logRecordProcessors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter() })],
  instrumentations: [new HttpInstrumentation()],
});
sdk.start();
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => sdk.shutdown().finally(() => process.exit(0)));
}
