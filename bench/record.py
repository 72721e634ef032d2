"""Record what the real client libraries and instrumentations send, against a fake server.

    python bench/record.py FAMILY tests/data/recorded/FAMILY.json

FAMILY is `official`, `official_event`, `traceloop`, `openinference` or `celery`.
Run it in a scratch environment that has the libraries of that family, as
`tests/data/recorded/README.md` says: they are no dependency of Engram, and the tests only read
the files.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

QUESTION, ANSWER = "Which shelf holds order 4711?", "Order 4711 is on shelf B7."
TOOL = {"type": "object", "properties": {"order": {"type": "string"}}}

_OPENAI = {
    "id": "chatcmpl-4711", "object": "chat.completion", "created": 1, "model": "gpt-fake-0",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
    ],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}  # fmt: skip
_OPENAI_CALL = {
    **_OPENAI,
    "id": "chatcmpl-4712",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "find_shelf", "arguments": '{"order": "4711"}'},
                    }
                ],
            },
        }
    ],
}
_ANTHROPIC = {
    "id": "msg_4711", "type": "message", "role": "assistant", "model": "claude-fake-0",
    "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 12, "output_tokens": 8},
}  # fmt: skip
_GEMINI = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 13, "candidatesTokenCount": 9, "totalTokenCount": 22},
    "modelVersion": "gemini-fake-0",
    "responseId": "gem-4711",
}


class _Fake(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, answer = 200, _OPENAI
        if b"please fail" in body:
            status, answer = 400, {"error": {"message": "bad thing", "type": "invalid"}}
        elif "messages" in self.path:
            answer = _ANTHROPIC
        elif "generateContent" in self.path:
            answer = _GEMINI
        elif b"find_shelf" in body:
            answer = _OPENAI_CALL
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def instrument(family: str) -> None:
    """Switch on the instrumentations of a family."""
    names = {
        "official": ["opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor",
                     "opentelemetry.instrumentation.genai.anthropic:AnthropicInstrumentor",
                     "opentelemetry.instrumentation.google_genai:GoogleGenAiSdkInstrumentor"],
        "traceloop": ["opentelemetry.instrumentation.openai:OpenAIInstrumentor",
                      "opentelemetry.instrumentation.anthropic:AnthropicInstrumentor",
                      "opentelemetry.instrumentation.google_generativeai:GoogleGenerativeAiInstrumentor"],
        "openinference": ["openinference.instrumentation.openai:OpenAIInstrumentor",
                          "openinference.instrumentation.anthropic:AnthropicInstrumentor",
                          "openinference.instrumentation.google_genai:GoogleGenAIInstrumentor"],
        "celery": ["opentelemetry.instrumentation.celery:CeleryInstrumentor"],
    }[family.partition("_")[0]]  # fmt: skip
    for name in names:
        module, _, class_ = name.partition(":")
        getattr(importlib.import_module(module), class_)().instrument(skip_dep_check=True)


def talk(url: str) -> None:
    """One question to each library, one tool call, one failure."""
    import anthropic
    import openai
    from google import genai

    gpt = openai.OpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0)
    system = {"role": "system", "content": "Be brief"}
    asked = [system, {"role": "user", "content": QUESTION}]
    gpt.chat.completions.create(model="gpt-fake", messages=asked)
    tool = {"type": "function", "function": {"name": "find_shelf", "parameters": TOOL}}
    gpt.chat.completions.create(model="gpt-fake", messages=asked, tools=[tool])
    try:
        wrong = [{"role": "user", "content": "please fail"}]
        gpt.chat.completions.create(model="gpt-fake", messages=wrong)
    except openai.BadRequestError:
        pass
    claude = anthropic.Anthropic(api_key="x", base_url=url, max_retries=0)
    claude.messages.create(
        model="claude-fake", max_tokens=50, system="Be brief", messages=asked[1:]
    )
    gemini = genai.Client(api_key="x", http_options={"base_url": url})
    gemini.models.generate_content(model="gemini-fake", contents=QUESTION)


def work() -> None:
    """Celery tasks over an in-memory broker, in a worker in another thread."""
    from celery import Celery
    from celery.contrib.testing.worker import start_worker

    app = Celery("shop", broker="memory://", backend="cache+memory://")
    app.conf.worker_hijack_root_logger = False

    @app.task(name="shop.import_prices")
    def import_prices(count: int) -> int:
        return count

    @app.task(name="shop.charge")
    def charge(order: int) -> None:
        raise ValueError(f"card of order {order} was refused")

    with start_worker(app, perform_ping_check=False, pool="solo"):
        import_prices.delay(3).get(timeout=20)
        charge.delay(4711).get(timeout=20, propagate=False)


def main() -> None:
    """Record one family."""
    family, output = sys.argv[1], Path(sys.argv[2])
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = (
        "EVENT_ONLY" if family.endswith("_event") else "SPAN_ONLY"
    )
    os.environ["ANTHROPIC_OPEN_TELEMETRY"] = "true" if family == "official_event" else "false"
    resource = Resource({"service.name": "warehouse", "telemetry.sdk.language": "python"})
    spans, logs, reader = (
        InMemorySpanExporter(),
        InMemoryLogRecordExporter(),
        InMemoryMetricReader(),
    )
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(traces)
    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    _logs.set_logger_provider(loggers)
    meters = MeterProvider(metric_readers=[reader], resource=resource)
    metrics.set_meter_provider(meters)
    instrument(family)
    if family == "celery":
        work()
    else:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Fake)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        talk(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    points = reader.get_metrics_data()
    requests = {
        "traces": encode_spans(spans.get_finished_spans()),
        "logs": encode_logs(logs.get_finished_logs()),
        **({"metrics": encode_metrics(points)} if points and family == "official" else {}),
    }
    text = json.dumps(
        {name: MessageToDict(request) for name, request in requests.items()}, indent=0
    )
    for path in {sys.prefix, str(Path(__file__).parent), sys.base_prefix}:
        text = text.replace(path, "/app")
    text = text.replace(socket.gethostname(), "worker")
    output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
