"""A custom agent in three lines: whose turn it is, in which conversation, and what was said.

    with agent("AUREA", conversation="c-42") as turn:
        turn.asked(question)
        turn.answered(client.chat.completions.create(...).choices[0].message.content)

It is one `invoke_agent` span of the GenAI conventions; with OpenTelemetry alone the same span does
the same (docs/ai.md). Model calls inside it carry the agent and the conversation, so `asked` and
`answered` may be left out where an instrumented client says the words.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import _logs, context, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from engram.instrumentation.api.values import said

_log = logging.getLogger("engram.instrumentation")

_AGENT: Final = context.create_key("engram-agent")
_CONVERSATION: Final = context.create_key("engram-conversation")
_MOST_TEXT: Final = 64 * 1024


def content_captured() -> bool:
    """Whether prompts, answers and states may be told: `ENGRAM_CAPTURE_CONTENT`, on by default."""
    wanted = os.environ.get("ENGRAM_CAPTURE_CONTENT", "").strip().lower()
    return wanted not in ("false", "0", "no", "off")


def within(name: str | None, conversation: str | None, base: Context | None = None) -> Context:
    """A context in which model calls belong to this agent and conversation.

    Context and not baggage: baggage is sent to every host that the program calls.
    """
    made = base if base is not None else context.get_current()
    if name:
        made = context.set_value(_AGENT, name, made)
    if conversation:
        made = context.set_value(_CONVERSATION, conversation, made)
    return made


def of_context(base: Context | None = None) -> dict[str, str]:
    """The attributes that a model call in this context gets from its agent."""
    found = {
        "gen_ai.agent.name": context.get_value(_AGENT, base),
        "gen_ai.conversation.id": context.get_value(_CONVERSATION, base),
    }
    return {key: value for key, value in found.items() if isinstance(value, str)}


class Turn:
    """One turn of an agent: what it was asked and what it answered."""

    def __init__(self, span: Span, user: str | None = None) -> None:
        self._user = {"user.id": user} if user else {}
        self.span = span
        """The turn's `invoke_agent` span, for attributes of your own."""

    def asked(self, text: object) -> None:
        """What the user said; a memory of its own at once, also when the turn never ends."""
        self._message("gen_ai.input.messages", "user", text)
        try:
            if content_captured() and text is not None:
                _logs.get_logger("engram.agents").emit(
                    LogRecord(
                        timestamp=time.time_ns(),
                        event_name="engram.user_interaction",
                        severity_number=SeverityNumber.INFO,
                        body=str(text)[:_MOST_TEXT],
                        attributes={**of_context(), **self._user},
                    )
                )
        except Exception:  # noqa: BLE001 - telemetry never raises in the app
            _log.debug("engram: what an agent was asked is lost", exc_info=True)

    def answered(self, text: object) -> None:
        """What the agent answered; said twice, the last one counts."""
        self._message("gen_ai.output.messages", "assistant", text)

    def _message(self, key: str, role: str, text: object) -> None:
        try:
            if content_captured() and text is not None:
                part = {"type": "text", "content": str(text)[:_MOST_TEXT]}
                message = [{"role": role, "parts": [part]}]
                self.span.set_attribute(key, json.dumps(message, ensure_ascii=False))
        except Exception:  # noqa: BLE001 - telemetry never raises in the app
            _log.debug("engram: a message of an agent's turn is lost", exc_info=True)


@contextmanager
def agent(
    name: str, *, conversation: str | None = None, user: str | None = None, **attributes: Any
) -> Iterator[Turn]:
    """A turn of an agent of this name; an exception in it fails the turn and goes on.

    Works around synchronous and asynchronous code alike. More attributes, whose names become
    those of the span, may be given.
    """
    known: dict[str, AttributeValue] = {
        **attributes,
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": name,
    }
    if conversation:
        known["gen_ai.conversation.id"] = conversation
    if user:
        known["user.id"] = user
    span = trace.get_tracer("engram.agents").start_span(
        f"invoke_agent {name}", kind=SpanKind.INTERNAL, attributes=known
    )
    token = context.attach(within(name, conversation, trace.set_span_in_context(span)))
    try:
        yield Turn(span, user)
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR, said(error, 1000)))
        raise
    finally:
        context.detach(token)
        span.end()


__all__ = ["Turn", "agent"]
