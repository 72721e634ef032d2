"""Model calls by the clients of OpenAI, Anthropic and Google: the official instrumentations.

What their normal loading does not do: content for memory (one event for each call; off with
`ENGRAM_CAPTURE_CONTENT=false`), one memory where the Anthropic client reports the call as well,
Gemini in spite of a version cap, and nothing imported that the app does not use.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import context
from opentelemetry.context import Context

from engram.instrumentation.agents import content_captured, of_context

_log = logging.getLogger("engram.instrumentation")

_CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@dataclass(frozen=True, slots=True)
class _Client:
    """A client library and the instrumentation that is made for it."""

    name: str
    """Of the instrumentation's entry point, as `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` has it."""
    distribution: str
    module: str
    instrumentor: tuple[str, str]
    needs: tuple[tuple[str, str], ...]
    """What the instrumentation replaces, as module and dotted name: looked at before, because a
    version above the instrumentation's own bound may have moved it."""


_CLIENTS: Final = (
    _Client(
        "openai",
        "openai",
        "openai",
        ("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"),
        (
            ("openai.resources.chat.completions", "Completions.create"),
            ("openai.resources.chat.completions", "AsyncCompletions.create"),
            ("openai.resources.embeddings", "Embeddings.create"),
        ),
    ),
    _Client(
        "anthropic",
        "anthropic",
        "anthropic",
        ("opentelemetry.instrumentation.genai.anthropic", "AnthropicInstrumentor"),
        (
            ("anthropic.resources.messages", "Messages.create"),
            ("anthropic.resources.messages", "AsyncMessages.create"),
        ),
    ),
    _Client(
        "google-genai",
        "google-genai",
        "google.genai",
        ("opentelemetry.instrumentation.google_genai", "GoogleGenAiSdkInstrumentor"),
        (
            ("google.genai.models", "Models.generate_content"),
            ("google.genai.models", "Models.generate_content_stream"),
            ("google.genai.models", "AsyncModels.generate_content"),
            ("google.genai.models", "AsyncModels.generate_content_stream"),
        ),
    ),
)

OWNED: Final = tuple(one.name for one in _CLIENTS)
"""Entry points of `opentelemetry_instrumentor` that a distro leaves to this capture."""

_said: dict[str, str] = {}


class _Belonging:
    """Completes a call's records with the agent and conversation it belongs to.

    A completion hook is the official place: it runs before the span ends and the event goes out.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def on_completion(self, *, span: Any = None, log_record: Any = None, **content: Any) -> None:
        """What the instrumentations call after each model call."""
        try:
            where: Context | None = getattr(log_record, "context", None)
            belongs = of_context(where or context.get_current())
            if belongs:
                if span is not None and span.is_recording():
                    span.set_attributes(belongs)
                if log_record is not None:
                    log_record.attributes = {**(log_record.attributes or {}), **belongs}
        except Exception:  # noqa: BLE001 - the call itself must go on
            _log.debug("engram: a model call is told without its agent", exc_info=True)
        self._inner.on_completion(span=span, log_record=log_record, **content)


def _hook() -> dict[str, Any]:
    # With content off no hook: the instrumentations would collect the content for it.
    if not content_captured():
        return {}
    from opentelemetry.util.genai.completion_hook import load_completion_hook

    return {"completion_hook": _Belonging(load_completion_hook())}


def _disabled() -> set[str]:
    """What the user disabled; our distribution leaves to us what it disables itself."""
    off, ours = (
        {one.strip() for one in os.environ.get(name, "").split(",")} - {""}
        for name in ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "ENGRAM_DISABLED_INSTRUMENTATIONS")
    )
    return off - ours


def _missing(client: _Client) -> str | None:
    for module, path in client.needs:
        try:
            found: Any = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            return f"{module}.{path}"
    return None


def _cap(client: _Client, instrumentor: Any) -> str:
    """Which declared bound the installed version is outside of, or nothing."""
    try:
        from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

        conflict = get_dependency_conflicts(instrumentor.instrumentation_dependencies())
        return f" (declared for {conflict.required})" if conflict else ""
    except Exception:  # noqa: BLE001 - only for the words
        return ""


def _instrument(client: _Client) -> None:
    """Instrument a client that the app has just imported."""
    version = _version(client.distribution)
    try:
        module, name = client.instrumentor
        instrumentor = getattr(importlib.import_module(module), name)()
        cap = _cap(client, instrumentor)
        if instrumentor.is_instrumented_by_opentelemetry:
            _tell(client, f"{version} instrumented before{cap}")
            return
        missing = _missing(client)
        if missing:
            _tell(client, f"{version} not instrumented: it has no {missing}")
            return
        try:
            instrumentor.instrument(skip_dep_check=True, **_hook())
        except Exception:
            instrumentor.uninstrument()  # half a library is worse than none
            raise
        checked = ", forced after a check of its methods" if cap else ""
        _tell(client, f"{version} instrumented{cap}{checked}")
    except Exception as error:  # noqa: BLE001 - the app's import must go on
        _tell(client, f"{version} not instrumented: {type(error).__name__}: {error}")
        _log.warning("engram: calls of %s are not captured: %s", client.distribution, error)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _tell(client: _Client, text: str) -> None:
    from engram.instrumentation.capture import installed

    _said[client.name] = text
    if "genai" in installed:
        installed["genai"] = _report()


def _report() -> str:
    mode = os.environ.get(_CONTENT, "")
    content = "content off" if mode in ("", "NO_CONTENT") else f"content on ({mode})"
    return "; ".join((*(f"{name} {text}" for name, text in _said.items()), content))


def _environment(clients: list[_Client]) -> None:
    """Settings that the instrumentations and clients read for themselves, later."""
    if content_captured():
        os.environ.setdefault(_CONTENT, "EVENT_ONLY")
    else:
        os.environ[_CONTENT] = "NO_CONTENT"
        os.environ["ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE"] = ""
    if any(one.name == "anthropic" for one in clients):
        # From 2.x on the client reports its calls itself: a second span of each call, less in it.
        os.environ.setdefault("ANTHROPIC_OPEN_TELEMETRY", "false")


def install() -> str:
    """Instrument each client when the app imports it."""
    disabled = _disabled()
    clients = [one for one in _CLIENTS if not disabled & {one.name, "*"}]
    _environment([one for one in clients if _version(one.distribution) != "not installed"])
    for one in _CLIENTS:
        if one.name in _said:
            continue
        if one not in clients:
            _said[one.name] = "disabled by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
            continue
        version = _version(one.distribution)
        waits = version != "not installed"
        _said[one.name] = f"{version} when the app imports it" if waits else version
        wrapt.register_post_import_hook(_on_import(one), one.module)
    return _report()


def _on_import(client: _Client) -> Any:
    def imported(_module: ModuleType) -> None:
        _instrument(client)

    return imported


__all__ = ["OWNED", "install"]
