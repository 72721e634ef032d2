"""A model server on this machine, in the wire formats of OpenAI, Anthropic and Gemini.

    python examples/fake_llm.py --port 8099

For tests and examples. What it answers depends on the request alone. `fail 400` (429, 500 ...) in
the last message of the user is that error; a tool that was offered is called once when that
message names it, with the arguments behind the name if they are JSON (`weather {"city": "Paris"}`);
`say X` is answered by X; anything else by an echo. `stream` (Gemini: `:streamGenerateContent`)
sends it word by word.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Answer:
    """What the model says, in no provider's format."""

    id: str
    text: str = ""
    tool: str | None = None
    arguments: Json = field(default_factory=dict)
    asked: int = 1
    said: int = 1

    @property
    def pieces(self) -> list[str]:
        return re.findall(r"\S+\s*", self.text)


class Failure(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"the fake model was told to fail with {status}")
        self.status = status


def text_of(content: Any) -> str:
    """The words in a message's content, of whichever provider."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return text_of(content.get("text") or content.get("parts") or content.get("content") or "")
    return " ".join(filter(None, map(text_of, content or [])))


_asked: Counter[str] = Counter()


def answer(question: str, tools: list[str], done: bool) -> Answer:
    """The answer to the user's last message; `done` says that a tool's result is already there."""
    digest = hashlib.sha256(f"{question}{tools}{done}".encode()).hexdigest()[:16]
    _asked[digest] += 1
    made = Answer(f"{digest}{_asked[digest]:x}")  # asked again, it is another answer's id
    made.asked = max(1, len(question.split()))
    if failing := re.search(r"\bfail (\d{3})\b", question):
        raise Failure(int(failing[1]))
    for tool in [] if done else tools:
        if named := re.search(rf"\b{re.escape(tool)}\b\s*(\{{.*?\}})?", question):
            made.tool = tool
            with contextlib.suppress(ValueError):
                made.arguments = json.loads(named[1] or "{}")
            made.said = 3
            return made
    said = re.search(r"\bsay (.+)", question, re.DOTALL)
    made.text = said[1] if said else f"You said: {question}"
    made.said = len(made.pieces)
    return made


# OpenAI -------------------------------------------------------------------------------------------


def openai_chat(body: Json) -> tuple[Json, list[Json]]:
    messages = body["messages"]
    asked = [text_of(m.get("content")) for m in messages if m["role"] == "user"]
    tools = [t["function"]["name"] for t in body.get("tools") or []]
    said = answer(asked[-1] if asked else "", tools, messages[-1]["role"] == "tool")
    base = {"id": f"chatcmpl-{said.id}", "created": 1_800_000_000, "model": body["model"]}
    usage = {
        "prompt_tokens": said.asked,
        "completion_tokens": said.said,
        "total_tokens": said.asked + said.said,
    }
    calls = []
    if said.tool:
        function = {"name": said.tool, "arguments": json.dumps(said.arguments)}
        calls = [{"id": f"call_{said.id}", "type": "function", "function": function}]
    reason = "tool_calls" if calls else "stop"
    message: Json = {"role": "assistant", "content": said.text or None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": reason}
    whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}

    def chunk(delta: Json, reason: str | None = None) -> Json:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return {**base, "object": "chat.completion.chunk", "choices": choices}

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": piece}) for piece in said.pieces]
    events += [chunk({"tool_calls": [{"index": i, **call}]}) for i, call in enumerate(calls)]
    events.append(chunk({}, reason))
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append({**base, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    return whole, events


def openai_responses(body: Json) -> tuple[Json, list[Json]]:
    given = body.get("input") or ""
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    asked = [text_of(i.get("content")) for i in items if i.get("role") == "user"]
    tools = [t["name"] for t in body.get("tools") or [] if "name" in t]
    done = items[-1].get("type") == "function_call_output"
    said = answer(asked[-1] if asked else "", tools, done)
    if said.tool:
        item: Json = {
            "id": f"fc_{said.id}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{said.id}",
            "name": said.tool,
            "arguments": json.dumps(said.arguments),
        }
    else:
        part = {"type": "output_text", "text": said.text, "annotations": []}
        item = {
            "id": f"msg_{said.id}",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }
    whole: Json = {
        "id": f"resp_{said.id}",
        "object": "response",
        "created_at": 1_800_000_000,
        "status": "completed",
        "model": body["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "instructions": body.get("instructions"),
        "error": None,
        "incomplete_details": None,
        "metadata": {},
        "usage": {
            "input_tokens": said.asked,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said.said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.asked + said.said,
        },
    }
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    at = {"output_index": 0, "item_id": item["id"]}
    empty = {**item, "content": []} if "content" in item else {**item, "arguments": ""}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
    ]
    if said.tool:
        done_with = {"arguments": item["arguments"]}
        events.append(
            {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]}
        )
        events.append({"type": "response.function_call_arguments.done", **at, **done_with})
    else:
        at = {**at, "content_index": 0}
        blank = {"type": "output_text", "text": "", "annotations": []}
        events.append({"type": "response.content_part.added", **at, "part": blank})
        events += [
            {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
            for piece in said.pieces
        ]
        events.append(
            {"type": "response.output_text.done", **at, "text": said.text, "logprobs": []}
        )
        events.append({"type": "response.content_part.done", **at, "part": item["content"][0]})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return whole, [{**event, "sequence_number": i} for i, event in enumerate(events)]


def openai_embeddings(body: Json) -> Json:
    given = body["input"]
    texts = given if isinstance(given, list) else [given]
    data = []
    for i, text in enumerate(texts):
        digest = hashlib.sha256(str(text).encode()).digest()
        vector = [byte / 255 for byte in digest[:8]]
        data.append({"object": "embedding", "index": i, "embedding": vector})
    tokens = sum(len(str(text).split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


# Anthropic ----------------------------------------------------------------------------------------


def anthropic_messages(body: Json) -> tuple[Json, list[Json]]:
    messages = body["messages"]
    asked = [text_of(m["content"]) for m in messages if m["role"] == "user"]
    last = messages[-1]["content"]
    done = isinstance(last, list) and any(p.get("type") == "tool_result" for p in last)
    words = [text for text in asked if text.strip()]
    tools = [t["name"] for t in body.get("tools") or []]
    said = answer(words[-1] if words else "", tools, done)
    if said.tool:
        call_id = f"toolu_{said.id}"
        block: Json = {
            "type": "tool_use", "id": call_id, "name": said.tool, "input": said.arguments,
        }  # fmt: skip
    else:
        block = {"type": "text", "text": said.text}
    reason = "tool_use" if said.tool else "end_turn"
    whole: Json = {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [block],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": said.asked, "output_tokens": said.said},
    }
    opened = {**block, "input": {}} if said.tool else {**block, "text": ""}
    if said.tool:
        deltas: list[Json] = [
            {"type": "input_json_delta", "partial_json": json.dumps(said.arguments)}
        ]
    else:
        deltas = [{"type": "text_delta", "text": piece} for piece in said.pieces]
    begun = {**whole, "content": [], "stop_reason": None}
    begun["usage"] = {"input_tokens": said.asked, "output_tokens": 0}
    events: list[Json] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": opened},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": said.said},
        },
        {"type": "message_stop"},
    ]
    return whole, events


# Gemini -------------------------------------------------------------------------------------------


def gemini(model: str, body: Json) -> tuple[Json, list[Json]]:
    contents = body["contents"]
    asked = [text_of(c) for c in contents if c.get("role", "user") == "user"]
    words = [text for text in asked if text.strip()]
    tools = [
        function["name"]
        for tool in body.get("tools") or []
        for function in tool.get("functionDeclarations") or []
    ]
    done = any("functionResponse" in part for part in contents[-1].get("parts") or [])
    said = answer(words[-1] if words else "", tools, done)
    usage = {
        "promptTokenCount": said.asked,
        "candidatesTokenCount": said.said,
        "totalTokenCount": said.asked + said.said,
    }

    def part_of(part: Json, last: bool) -> Json:
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": [part]}}
        made: Json = {"candidates": [candidate], "modelVersion": model, "responseId": said.id}
        if last:
            candidate["finishReason"] = "STOP"
            made["usageMetadata"] = usage
        return made

    if said.tool:
        only = part_of({"functionCall": {"name": said.tool, "args": said.arguments}}, True)
        return only, [only]
    pieces = said.pieces or [""]
    events = [part_of({"text": p}, i == len(pieces) - 1) for i, p in enumerate(pieces)]
    return part_of({"text": said.text}, True), events


# HTTP ---------------------------------------------------------------------------------------------


def failed(path: str, status: int, text: str) -> Json:
    if "/messages" in path:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
        return {"type": "error", "error": {"type": kind, "message": text}}
    if "models/" in path:
        return {"error": {"code": status, "message": text, "status": "FAILED_PRECONDITION"}}
    return {"error": {"message": text, "type": "invalid_request_error", "code": None}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = self.path.partition("?")[0]
        try:
            whole, events, named = self.route(path, body)
        except Failure as error:
            self.send(error.status, failed(path, error.status, str(error)))
            return
        except (KeyError, IndexError, TypeError) as error:
            self.send(400, failed(path, 400, f"{type(error).__name__}: {error}"))
            return
        if whole is None:
            self.send(404, {"error": {"message": f"there is no {path}"}})
        elif body.get("stream") or "stream" in path:
            self.stream(events, named, path.endswith("/completions"))
        else:
            self.send(200, whole)

    def route(self, path: str, body: Json) -> tuple[Json | None, list[Json], bool]:
        if path.endswith("/chat/completions"):
            return *openai_chat(body), False
        if path.endswith("/responses"):
            return *openai_responses(body), True
        if path.endswith("/embeddings"):
            return openai_embeddings(body), [], False
        if path.endswith("/messages"):
            return *anthropic_messages(body), True
        if found := re.search(r"/models/([^:/]+):(?:stream)?[gG]enerateContent$", path):
            return *gemini(found[1], body), False
        return None, [], False

    def send(self, status: int, body: Json) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def stream(self, events: list[Json], named: bool, done: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            name = f"event: {event['type']}\n" if named else ""
            self.chunk(f"{name}data: {json.dumps(event)}\n\n")
        if done:
            self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        raw = text.encode()
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: it runs beside a demo."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to tell about."""


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """The server in a thread; yields its URL."""
    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8099)
    with serving(parser.parse_args().port) as url:
        print(f"fake models on {url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
