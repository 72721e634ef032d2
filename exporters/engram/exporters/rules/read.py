"""Readers: what cannot be said as an expression, for the few records that need it.

A reader turns columns of the matching records into columns that the rules name as `reader:column`:
the messages of an LLM call, the stack of a failure, the payload of an explicit mark.
Whatever a reader says of a record, it says from that record alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Final

import polars as pl

from engram.exporters.memories import ALIASES, AMENDS, CONCLUSIONS
from engram.exporters.merge import join_object, split_object
from engram.exporters.recalled import without, without_json

REVISION: Final = 3
"""Part of `rules_version`: to be raised when a reader reads the same record differently."""

Columns = dict[str, list[Any]]

_DECODER = json.JSONDecoder(strict=False)  # kept: json.loads(strict=False) makes one per call
_decode = _DECODER.raw_decode
_scan = _DECODER.scan_once  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader: what it takes, what it makes, and how."""

    takes: tuple[str, ...]
    """Columns and named values; one that is absent comes as a list of None."""
    makes: dict[str, pl.DataType]
    read: Callable[[Columns, int], Columns]
    attributes: tuple[str, ...] = ()
    """Attribute keys it looks for."""
    resource: tuple[str, ...] = ()


# --- messages of an LLM call -------------------------------------------------------------------

_ROLE = re.compile(r'"role"\s*:\s*"(\w+)"')
_CUT_TEXT = re.compile(r'"(?:content|text)"\s*:\s*"((?:[^"\\]|\\.)*)')


def _salvage(text: str) -> list[Any]:
    """The messages of a JSON array that an SDK cut in the middle."""
    messages: list[Any] = []
    at = text.find("[") + 1
    if not at:
        return []
    while at < len(text):
        if text[at] in " \t\r\n,":
            at += 1
            continue
        try:
            message, at = _decode(text, at)
        except ValueError:
            break
        messages.append(message)
    rest = text[at:]
    role = _ROLE.search(rest)
    pieces = [p.rstrip("\\") for p in _CUT_TEXT.findall(rest)]
    if pieces:
        parts = []
        for piece in pieces:
            try:
                parts.append({"type": "text", "content": json.loads(f'"{piece}"', strict=False)})
            except ValueError:
                parts.append({"type": "text", "content": piece})
        messages.append({"role": role[1] if role else "", "parts": parts})
    return messages


def _messages(text: str | None) -> list[dict[str, Any]]:
    if not text:
        return []
    try:
        found, end = _scan(text, 0)
        if end != len(text):
            found = _DECODER.decode(text)
    except (ValueError, StopIteration, RecursionError):
        found = _salvage(text)
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        return []
    return [m for m in found if isinstance(m, dict)]


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    if isinstance(inner := message.get("message"), dict):  # a choice of the old dialect
        message = inner
    parts = message.get("parts")
    if parts is None:
        parts = message.get("contents", message.get("content"))
    if isinstance(parts, str | dict):
        parts = [parts]
    found = [
        p if isinstance(p, dict) else {"type": "text", "content": p}
        for p in parts or ()
        if isinstance(p, dict | str)
    ] if isinstance(parts, list) else []  # fmt: skip
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            function = call.get("function", call)
            found.append({"type": "tool_call", **(function if isinstance(function, dict) else {})})
    return found


# OpenInference and Traceloop's old names put each field of each message into an attribute.
_FLAT = {
    True: re.compile(r"(?:llm\.input_messages|gen_ai\.prompt)\.(\d+)\.(?:message\.)?(.+)"),
    False: re.compile(r"(?:llm\.output_messages|gen_ai\.completion)\.(\d+)\.(?:message\.)?(.+)"),
}
_FLAT_CALL = re.compile(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(name|arguments)")
_FLAT_PART = re.compile(r"contents\.(\d+)\.message_content\.(type|text)")
_RAW = {True: "input.value", False: "output.value"}


def _flat(attributes: str, asked: bool) -> list[dict[str, Any]]:
    """Messages that were flattened into attributes, in their order."""
    messages: dict[int, dict[str, Any]] = {}
    calls: dict[tuple[int, int], dict[str, Any]] = {}
    pieces: dict[tuple[int, int], dict[str, Any]] = {}
    try:
        values = json.loads(attributes, strict=False)
    except (ValueError, RecursionError):
        return []
    for key, value in values.items():
        found = _FLAT[asked].fullmatch(key)
        if found is None:
            continue
        number, name = int(found[1]), found[2]
        message = messages.setdefault(number, {})
        if call := _FLAT_CALL.fullmatch(name):
            calls.setdefault((number, int(call[1])), {})[call[2]] = value
        elif piece := _FLAT_PART.fullmatch(name):
            pieces.setdefault((number, int(piece[1])), {})[piece[2]] = value
        else:
            message[name] = value
    for number, _ in sorted(pieces):
        messages[number].setdefault("contents", [])
    for (number, _), part in sorted(pieces.items()):
        messages[number]["contents"].append(part)
    for (number, _), made in sorted(calls.items()):
        messages[number].setdefault("tool_calls", []).append(made)
    if not messages and isinstance(raw := values.get(_RAW[asked]), str) and not raw.startswith("{"):
        return [{"role": "user" if asked else "assistant", "content": raw}]
    return [messages[number] for number in sorted(messages)]


def _text_of(part: dict[str, Any]) -> str:
    if part.get("type", "text") in ("text", "input_text", "output_text"):
        text = part.get("content", part.get("text"))
        return text if isinstance(text, str) else ""
    return ""


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


_ANSWERS_A_TOOL = ("tool_call_response", "tool_result", "function_call_output")
_NO_ATTACHMENT = ("text", "input_text", "reasoning", "tool_call", *_ANSWERS_A_TOOL)


def _question(messages: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """The last user message, and the kinds of its attachments as JSON.

    None when a tool has answered since: the call continues an older question.
    """
    for message in reversed(messages):
        role, parts = message.get("role"), _parts(message)
        if len(messages) == 1 and role is None:
            role = "user"  # an event of one message need not say whose it is
        if role == "tool" or any(p.get("type") in _ANSWERS_A_TOOL for p in parts):
            return None, None
        if role != "user":
            continue
        said = without("\n".join(t for p in parts if (t := _text_of(p))))
        kinds = [str(p.get("modality") or p.get("type")) for p in parts
                 if p.get("type", "text") not in _NO_ATTACHMENT]  # fmt: skip
        if said or kinds:
            return said or f"({', '.join(kinds)})", _dump(kinds) if kinds else None
    return None, None


def _answer(messages: list[dict[str, Any]]) -> tuple[str | None, str | None, str | None]:
    """What the model said, its tool calls as readable text, and as JSON."""
    said: list[str] = []
    calls: list[dict[str, Any]] = []
    for message in messages:
        for part in _parts(message):
            if part.get("type") in ("tool_call", "tool_use", "function_call"):
                arguments = part.get("arguments", part.get("input"))
                calls.append({"name": part.get("name"), "arguments": arguments})
            elif words := without(_text_of(part)):
                said.append(words)
    if not calls:
        return "\n".join(said) or None, None, None
    readable = ", ".join(
        f"{c['name']}({a if isinstance(a := c['arguments'], str) else _dump(a)})" for c in calls
    )
    return "\n".join(said) or None, readable, _dump(calls)


def _told(columns: Columns, given: str, *, asked: bool) -> list[list[dict[str, Any]]]:
    return [
        _messages(text) if text else _flat(flat, asked) if flat else []
        for text, flat in zip(columns[given], columns["messages_flat"], strict=True)
    ]


def read_question(columns: Columns, height: int) -> Columns:
    """What the user asked in LLM calls."""
    asked = [_question(messages) for messages in _told(columns, "messages_in", asked=True)]
    return {"text": [q for q, _ in asked], "attachments": [a for _, a in asked]}


def read_answer(columns: Columns, height: int) -> Columns:
    """What the model said and which tools it called."""
    told = [_answer(messages) for messages in _told(columns, "messages_out", asked=False)]
    return {
        "text": [t[0] for t in told],
        "tools": [t[1] for t in told],
        "tool_calls": [t[2] for t in told],
    }


def read_records(columns: Columns, height: int) -> Columns:
    """What an agent stored in its memory."""
    texts: list[str | None] = []
    for raw in columns["attr:gen_ai.memory.records"]:
        lines = []
        for record in _messages(raw):
            content = record.get("content")
            lines.append(content if isinstance(content, str) else _dump(content))
        texts.append("\n".join(line for line in lines if line and line != "null") or None)
    return {"text": texts}


# --- failures ----------------------------------------------------------------------------------

_VARIABLE = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|0x[0-9a-fA-F]+|\b(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b|[0-9]+"
)
_LEADING_TYPE = re.compile(r"(?:[A-Za-z_][\w$]*\.)*[A-Z][\w$]*:(?:\s+|$)")
_PYTHON_FRAME = re.compile(r'File "([^"]+)", line \d+, in (\S+)')
_JAVA_FRAME = re.compile(r"^\s*at ([\w.$/@]+)\.([\w$<>]+)\(([^:)]*)(?::\d+)?\)", re.M)
_JS_FRAME = re.compile(
    r"^\s*(?:at (?:async )?(?:(.+?) \()?|(\S*?)@)((?:[a-z]+:)?[^\s()]+?):\d+(?::\d+)?\)?$", re.M
)
_GO_FRAME = re.compile(r"^([\w./*()\-]+?)\([^\n]*\)\n\t(\S+\.go):\d+", re.M)
_LIBRARY = re.compile(
    r"site-packages|dist-packages|/lib/python|node_modules|<frozen|<string>|^node:|\bnode:internal"
    r"|/pkg/mod/|/usr/(?:local/)?go/src|/opt/hostedtoolcache/|\\Lib\\"
)
_JAVA_LIBRARY = re.compile(
    r"(?:java|javax|jdk|sun|com\.sun|kotlin|kotlinx|scala|jakarta|io\.netty|reactor"
    r"|org\.(?:springframework|apache|hibernate|eclipse|junit))\."
)


def mask(text: str) -> str:
    """The text with ids and numbers replaced by `#`, on one line."""
    return _VARIABLE.sub("#", " ".join(text.split()))


def top_frame(stack: str) -> str | None:
    """`file:function` of the innermost frame that belongs to the app and not to a library."""
    python = _PYTHON_FRAME.findall(stack)
    if python:
        own = [f for f in python if not _LIBRARY.search(f[0])]
        return _frame(*own[-1]) if own else None
    for module, function, file in _JAVA_FRAME.findall(stack):
        if not _JAVA_LIBRARY.match(module) and "/" not in file:
            return _frame(file or module, f"{module.rpartition('.')[2]}.{function}")
    for function, file in _GO_FRAME.findall(stack):
        if not _LIBRARY.search(file) and not function.startswith(("runtime.", "panic")):
            return _frame(file, function.rpartition("/")[2])
    for named, firefox, file in _JS_FRAME.findall(stack):
        if not _LIBRARY.search(file):
            return _frame(file, named or firefox or "<anonymous>")
    return None


def _frame(file: str, function: str) -> str:
    name = re.split(r"[/\\]", file.split("?")[0])[-1]
    return f"{_VARIABLE.sub('#', name)}:{function}"


def _failure_key(bare: str | None, message: str) -> str:
    """What every report of one failure shares.

    Reports differ in whether they know the type (a status message often does not), and exceptions
    are wrapped with the same words, so a telling message is the key by itself;
    one with hardly a letter in it needs the type.
    """
    words = message
    while leading := _LEADING_TYPE.match(words):
        bare = bare or words[: leading.end()].split(":")[0].rpartition(".")[2]
        words = words[leading.end() :]
    masked = mask(words[:1000])[:200]
    if sum(c.isalpha() for c in masked) >= 4:
        return masked
    return f"{bare or 'error'}: {masked}"


def digest(*parts: str) -> str:
    """BLAKE2b of texts: 16 hex digits."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()


@lru_cache(maxsize=1024)
def _understand(
    type_: str | None, message: str | None, stack: str | None, service: str
) -> tuple[str | None, str | None, str | None, str | None, str, str]:
    text = (message or "").strip()
    full = type_ or None
    leading = _LEADING_TYPE.match(text)
    if leading:
        said = text[: leading.end()].rstrip().removesuffix(":")
        bare_said = said.rpartition(".")[2]
        if full is None or bare_said == re.split(r"[./$]", full)[-1]:
            full = full or said
            text = text[leading.end() :]
    bare = re.split(r"[./]", full)[-1].lstrip("*") if full else None
    frame = top_frame(stack) if stack else None
    key = _failure_key(bare, text)
    print_ = digest(service, bare or "", mask(text)[:300], frame or "")
    return full, bare, text or None, frame, print_, key


def read_failure(columns: Columns, height: int) -> Columns:
    """Type, message, frame, fingerprint and merge key of failures."""
    made: Columns = {name: [] for name in READERS["failure"].makes}
    rows = zip(*(columns[name] for name in READERS["failure"].takes), strict=True)
    for type_, message, stack, service, trace, instance, content_hash in rows:
        full, bare, text, frame, fingerprint, key = _understand(
            type_, message, stack, service or ""
        )
        made["full_type"].append(full)
        made["type"].append(bare)
        made["message"].append(text)
        made["stack"].append(stack)
        made["frame"].append(frame)
        made["fingerprint"].append(fingerprint)
        # Without a trace nothing says that two reports are one failure: each stays alone.
        made["scope"].append(trace or f"{service or ''}\0{instance or ''}")
        made["key"].append(key if trace else str(content_hash))
    return made


# --- explicit marks ----------------------------------------------------------------------------

_TYPE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_ID = re.compile(r"[0-9a-f]{24}")
_PREFIX = "engram."
_NOT_PAYLOAD = (
    _PREFIX, "code.", "thread.", "otel.", "telemetry.", "exception.stacktrace", "event.name",
    "user.id", "session.id", "gen_ai.conversation.id", "color_message", "logger.",
)  # fmt: skip


def _readable(key: str, raw: str) -> str:
    """One line of content for one raw JSON value."""
    if raw.startswith('"'):
        raw = str(json.loads(raw, strict=False))
    return f"{key}: {raw}"


def _tags(raw: str | None) -> list[str]:
    if not raw:
        return []
    try:
        found = json.loads(raw)
    except ValueError:
        found = raw.split(",")
    if not isinstance(found, list):
        found = [raw]
    return [t for f in found if (t := (f if isinstance(f, str) else _dump(f)).strip())]


def _importance(raw: str | None) -> float | None:
    try:
        value = float(raw or "nan")
    except ValueError:
        return None
    return None if value != value else min(1.0, max(0.0, value))


def read_mark(columns: Columns, height: int) -> Columns:
    """Type, title, content, tags and payload of what an app marked explicitly."""
    made: Columns = {name: [] for name in READERS["mark"].makes}
    rows = zip(*(columns[name] for name in READERS["mark"].takes), strict=True)
    for (signal, event, name, marked, title, content, importance, tags, own_id, attributes,
         body, body_text, status, severity, content_hash, speaker, amends, verbatim,
         outcome) in rows:  # fmt: skip
        named = event or (name if signal == "span_event" else None)
        given = (
            named.removeprefix(_PREFIX)
            if named is not None and named.startswith(_PREFIX)
            else str(marked or "").strip()
        )
        type_ = ALIASES.get(given, given)
        title, content, body_text = (one and without(one) for one in (title, content, body_text))
        body = body and without_json(body)
        labels = _tags(tags)
        if not _TYPE.fullmatch(type_):
            labels.append(f"unmapped:{given}")
            type_ = "system_event"
        elif speaker == "browser" and type_ in CONCLUSIONS:
            labels.append(f"claimed:{type_}")  # anybody can write into a page
            type_ = "system_event"
        pairs = split_object(attributes)
        payload = {k: v for k, v in pairs.items() if not k.startswith(_NOT_PAYLOAD)}
        lines = [content] if content else []
        if body is not None and body.startswith("{"):
            payload["body"] = body
            lines += [_readable(k, v) for k, v in split_object(body).items()]
        elif body_text:
            lines.append(body_text)
        lines += [_readable(k, v) for k, v in payload.items() if k != "body"]
        if not title:
            first = next((line for line in (content, body_text) if line), None)
            if body is not None and body.startswith("{") and not content:
                first = lines[0] if lines else None
            title = (name if signal == "span" else first) or type_.replace("_", " ").capitalize()
        if title not in lines:
            lines.insert(0, title)
        if verbatim == "true" and body_text:
            lines = [body_text]
        made["type"].append(type_)
        made["title"].append(title)
        made["content"].append("\n".join(lines))
        made["importance"].append(_importance(importance))
        made["tags"].append(labels)
        made["payload"].append(join_object(payload))
        failed = status == 2 or (severity or 0) >= 17
        made["outcome"].append(
            outcome
            if outcome in ("ok", "error")
            else "error"
            if failed
            else "ok"
            if signal == "span"
            else None
        )
        if amends and speaker is None and _ID.fullmatch(amends):
            made["key"].append(f"{AMENDS}{amends}")
        else:
            made["key"].append(f"id:{own_id}" if own_id else f"hash:{content_hash}")
    return made


_S = pl.String()
READERS: Final[dict[str, Reader]] = {
    "question": Reader(
        ("messages_in", "messages_flat"), {"text": _S, "attachments": _S}, read_question
    ),
    "answer": Reader(
        ("messages_out", "messages_flat"),
        {"text": _S, "tools": _S, "tool_calls": _S},
        read_answer,
    ),
    "records": Reader(
        ("attr:gen_ai.memory.records",), {"text": _S}, read_records,
        attributes=("gen_ai.memory.records",),
    ),
    "failure": Reader(
        ("failure_type", "failure_message", "failure_stack", "service_name", "trace_id",
         "res:service.instance.id", "content_hash"),
        {"full_type": _S, "type": _S, "message": _S, "stack": _S, "frame": _S, "fingerprint": _S,
         "scope": _S, "key": _S},
        read_failure,
        resource=("service.instance.id",),
    ),
    "mark": Reader(
        ("signal", "event", "name", "attr:engram.memory.type", "attr:engram.title",
         "attr:engram.content", "attr:engram.importance", "attr:engram.tags", "attr:engram.id",
         "attributes", "body", "body_text", "status_code", "severity_number", "content_hash",
         "speaker", "attr:engram.amends", "attr:engram.verbatim", "attr:engram.outcome"),
        {"type": _S, "title": _S, "content": _S, "importance": pl.Float64(),
         "tags": pl.List(pl.String()), "payload": _S, "outcome": _S, "key": _S},
        read_mark,
        attributes=("engram.memory.type", "engram.title", "engram.content", "engram.importance",
                    "engram.tags", "engram.id", "engram.amends", "engram.verbatim",
                    "engram.outcome"),
    ),
}  # fmt: skip


def quote(text: str) -> str:
    """A string as JSON."""
    return encode_basestring(text)
