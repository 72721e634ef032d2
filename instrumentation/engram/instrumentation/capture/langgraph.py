"""LangGraph: every node's run, by the public callbacks of langchain_core.

Each run of a node is an event when it begins (it is there also when the process dies in the node)
and a span when it ends; a graph's run is a span. Model calls inside a node are its span's children.
"""

from __future__ import annotations

import contextvars
import functools
import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final
from uuid import UUID

import wrapt
from opentelemetry import _logs, context, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from engram.instrumentation.agents import content_captured, within
from engram.instrumentation.api.values import said

from ._state import MOST_BYTES, difference, dump

_log = logging.getLogger("engram.instrumentation")

_MOST_RUNS: Final = 4096
"""Runs that are remembered at once. Of one whose end never comes the oldest is ended when a newer
one needs its place; a run then costs its parent's link and at most 16 KiB of state."""

_BREAKPOINTS: Final = ("interrupt_before", "interrupt_after")
"""What a graph's loop calls its state when a breakpoint stopped it."""

_UNNAMED: Final = "LangGraph"
"""What a graph is called that was compiled without a name."""


class _Run:
    """A run that has a span: of a graph, a node or a tool."""

    __slots__ = (
        "agent", "before", "entry", "id", "interrupts", "kind", "namespace", "parent", "paused",
        "span",
    )  # fmt: skip

    def __init__(self, kind: str, span: Span, parent: _Run | None) -> None:
        self.kind = kind
        self.span = span
        self.parent = parent
        self.id: UUID | None = None
        self.agent: str | None = parent.agent if parent else None
        """Whose model calls those inside are, where the graph's own messages do not tell."""
        self.entry: str | None = None
        self.namespace: str | None = None
        self.before: Context | None = None
        self.interrupts: list[str] = []
        self.paused = ""
        """Why it stopped, where that is no node's doing: a breakpoint of `compile` or `invoke`."""


class _Recorder:
    """The callback handler, but for langchain_core's base class, which is only there at run time.

    `run_inline`: in the same task or thread as the node, so that its context can be set.
    """

    run_inline = True
    raise_error = False
    ignore_llm = True
    ignore_chat_model = True
    ignore_retriever = True
    ignore_retry = True
    ignore_custom_event = True

    def __init__(self) -> None:
        self._runs: OrderedDict[UUID, _Run] = OrderedDict()
        self._namespaces: set[str] = set()
        self._lock = threading.Lock()

    # What langchain_core calls. Its own guard would log what raises; we rather say nothing.

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **_: Any,
    ) -> None:
        """A graph, a node, or one of the many runnables inside them, begins."""
        try:
            known = metadata or {}
            node, namespace = known.get("langgraph_node"), known.get("langgraph_checkpoint_ns")
            with self._lock:
                parent = self._runs.get(parent_run_id) if parent_run_id else None
                # A compiled subgraph inside a node may have the node's name: it is the same run.
                begins = node is not None and node == name and namespace not in self._namespaces
                if begins and namespace:
                    self._namespaces.add(namespace)
            if begins and not str(node).startswith("__"):
                self._keep(run_id, self._node(inputs, str(node), known, parent))
            elif _is_graph(known, name, parent, inputs):
                self._keep(run_id, self._graph(inputs, name or _UNNAMED, known, parent))
            elif parent is not None:
                self._keep(run_id, parent)  # so that what is inside finds its parent
        except Exception:  # noqa: BLE001
            _log.debug("engram: a run of a graph is not told", exc_info=True)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """It is done."""
        try:
            run = self._take(run_id)
            if run is None:
                return
            if run.kind == "graph" and (run.interrupts or run.paused):
                self._waiting(run, run.interrupts)
            else:
                self._done(run, outputs)
            self._end(run)
        except Exception:  # noqa: BLE001
            _log.debug("engram: the end of a graph's run is not told", exc_info=True)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """It raised; LangGraph raises also to wait for a person and to jump."""
        try:
            run = self._take(run_id)
            if run is None:
                return
            kinds = {one.__name__ for one in type(error).__mro__}
            if "GraphInterrupt" in kinds:
                asked = _asked(error)
                self._waiting(run, asked)
                above: _Run | None = run.parent
                while above is not None:
                    above.interrupts += asked
                    above.paused = above.paused or "interrupt"
                    above = above.parent
            elif "GraphBubbleUp" in kinds:
                self._done(run, error.args[0] if error.args else None)
            else:
                _failed(run.span, error)
            self._end(run)
        except Exception:  # noqa: BLE001
            _log.debug("engram: the failure of a graph's run is not told", exc_info=True)

    def on_interrupt(self, event: Any) -> None:
        """LangGraph's own callback, before the end of the outermost graph that waits."""
        try:
            with self._lock:
                run = self._runs.get(event.run_id)
            if run is not None and run.id == event.run_id:
                run.paused = str(event.status)
        except Exception:  # noqa: BLE001
            _log.debug("engram: a graph's breakpoint is not told", exc_info=True)

    def on_tool_start(
        self,
        serialized: Mapping[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        name: str | None = None,
        inputs: Any = None,
        tool_call_id: str | None = None,
        **_: Any,
    ) -> None:
        """A tool of langchain_core is called, by a graph or without one."""
        try:
            with self._lock:
                parent = self._runs.get(parent_run_id) if parent_run_id else None
            tool = name or str((serialized or {}).get("name") or "tool")
            attributes: dict[str, AttributeValue] = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": tool,
            }
            if tool_call_id:
                attributes["gen_ai.tool.call.id"] = tool_call_id
            if content_captured():
                given = inputs if inputs is not None else input_str
                attributes["gen_ai.tool.call.arguments"] = dump(given)
            run = _begin("tool", f"execute_tool {tool}", parent, attributes)
            _enter(run, None)
            self._keep(run_id, run)
        except Exception:  # noqa: BLE001
            _log.debug("engram: a call of a tool is not told", exc_info=True)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """The tool answered."""
        try:
            run = self._take(run_id)
            if run is not None:
                if content_captured():
                    result = getattr(output, "content", output)
                    run.span.set_attribute("gen_ai.tool.call.result", dump(result))
                self._end(run)
        except Exception:  # noqa: BLE001
            _log.debug("engram: the result of a tool is not told", exc_info=True)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """The tool raised; an interrupt in it is its node's."""
        try:
            run = self._take(run_id)
            if run is not None:
                if "GraphBubbleUp" not in {one.__name__ for one in type(error).__mro__}:
                    _failed(run.span, error)
                self._end(run)
        except Exception:  # noqa: BLE001
            _log.debug("engram: the failure of a tool is not told", exc_info=True)

    # What is told.

    def _node(self, inputs: Any, node: str, known: Mapping[str, Any], parent: _Run | None) -> _Run:
        attributes: dict[str, AttributeValue] = {"langgraph.node": node}
        for key in ("langgraph_step", "langgraph_checkpoint_ns"):
            if isinstance(known.get(key), (str, int)):
                attributes[f"langgraph.{key.removeprefix('langgraph_')}"] = known[key]
        attributes["langgraph.triggers"] = [str(t) for t in known.get("langgraph_triggers") or ()]
        conversation = _conversation(known, attributes)
        run = _begin("node", f"node {node}", parent, attributes)
        run.namespace = known.get("langgraph_checkpoint_ns")
        begun = dict(attributes)
        if content_captured():
            run.entry = begun["langgraph.entry_state"] = dump(inputs)
        _enter(run, conversation)
        _logs.get_logger("engram.langgraph").emit(
            LogRecord(
                timestamp=time.time_ns(),
                context=trace.set_span_in_context(run.span),
                event_name="engram.langgraph.node",
                severity_number=SeverityNumber.INFO,
                attributes=begun,
            )
        )
        return run

    def _graph(self, inputs: Any, name: str, known: Mapping[str, Any], parent: _Run | None) -> _Run:
        attributes: dict[str, AttributeValue] = {}
        _conversation(known, attributes)
        question = _message(inputs, ("human", "user"))
        if question is not None and name != _UNNAMED:
            operation = "invoke_agent"
            attributes["gen_ai.agent.name"] = name
        else:
            operation = "invoke_workflow"
            attributes["gen_ai.workflow.name"] = name
        attributes["gen_ai.operation.name"] = operation
        if content_captured():
            attributes["langgraph.entry_state"] = dump(inputs)
            if question is not None:
                attributes["gen_ai.input.messages"] = _said("user", question)
        run = _begin("graph", f"{operation} {name}", parent, attributes)
        run.agent = None if operation == "invoke_agent" or name == _UNNAMED else name
        # Not the current span: between the steps of a stream the caller's code runs.
        return run

    def _done(self, run: _Run, outputs: Any) -> None:
        run.span.set_attribute("langgraph.success", True)
        if not content_captured():
            return
        outcome = dump(outputs)
        run.span.set_attribute("langgraph.outcome", outcome)
        update = getattr(outputs, "update", None) if _is_command(outputs) else None
        after = outcome if update is None else dump(update)
        changed = difference(run.entry, after) if run.entry and run.kind == "node" else None
        if changed is not None:
            run.span.set_attribute("langgraph.diff", changed)
        answer = _message(outputs, ("ai", "assistant")) if run.kind == "graph" else None
        if answer is not None:
            run.span.set_attribute("gen_ai.output.messages", _said("assistant", answer))

    def _waiting(self, run: _Run, asked: list[str]) -> None:
        run.span.set_attribute("langgraph.interrupted", True)
        if asked and content_captured():
            run.span.set_attribute("langgraph.interrupt", "; ".join(asked[:8])[:4096])
        elif run.paused in _BREAKPOINTS:
            run.span.set_attribute("langgraph.interrupt", f"breakpoint ({run.paused})")

    # Bookkeeping.

    def _keep(self, run_id: UUID, run: _Run) -> None:
        lost: list[_Run] = []
        with self._lock:
            if run.id is None:
                run.id = run_id
            self._runs[run_id] = run
            while len(self._runs) > _MOST_RUNS:
                old_id, old = self._runs.popitem(last=False)
                if old.id == old_id:
                    lost.append(old)
                    self._namespaces.discard(old.namespace or "")
        for old in lost:
            old.span.end()

    def _take(self, run_id: UUID) -> _Run | None:
        """The run that ends here, unless it was only a link to the one around it."""
        with self._lock:
            run = self._runs.pop(run_id, None)
            return run if run is not None and run.id == run_id else None

    def _end(self, run: _Run) -> None:
        if run.namespace:
            with self._lock:
                self._namespaces.discard(run.namespace)
        # Only where it is still ours, which it is not when the end is told in another task. To set
        # what was before is what a token does, without a complaint where the context is a copy.
        if run.before is not None and trace.get_current_span() is run.span:
            context.attach(run.before)
        run.span.end()


def _begin(
    kind: str, name: str, parent: _Run | None, attributes: dict[str, AttributeValue]
) -> _Run:
    base = context.get_current()
    # The run around it, unless what is current is nearer: a span of the app's own inside a node.
    if parent is not None and (parent.kind == "graph" or parent.before is None):
        base = trace.set_span_in_context(parent.span, base)
    tracer = trace.get_tracer("engram.langgraph")
    return _Run(kind, tracer.start_span(name, context=base, attributes=attributes), parent)


def _enter(run: _Run, conversation: str | None) -> None:
    """Make the run's span the current one for what is inside it."""
    run.before = context.get_current()
    context.attach(within(run.agent, conversation, trace.set_span_in_context(run.span)))


def _is_graph(known: Mapping[str, Any], name: str | None, parent: _Run | None, inputs: Any) -> bool:
    """Whether this is a graph's own run: of the outermost, or of a named agent inside a node."""
    if parent is None:
        graph = known.get("ls_integration") == "langgraph" or name == _UNNAMED
        return graph and "langgraph_node" not in known
    inner = known.get("checkpoint_ns")
    inside = inner is not None and inner == known.get("langgraph_checkpoint_ns")
    return inside and name != _UNNAMED and _message(inputs, ("human", "user")) is not None


def _is_command(outputs: Any) -> bool:
    return type(outputs).__name__ == "Command"


def _conversation(known: Mapping[str, Any], attributes: dict[str, AttributeValue]) -> str | None:
    thread = known.get("thread_id")
    for key, name in (("user_id", "user.id"), ("session_id", "session.id")):
        if isinstance(known.get(key), (str, int)):
            attributes[name] = str(known[key])
    if thread is None:
        return None
    attributes["gen_ai.conversation.id"] = str(thread)
    return str(thread)


def _message(state: Any, roles: tuple[str, ...]) -> str | None:
    """The last message of one of these roles in a state, if the state has messages at all."""
    messages = state.get("messages") if isinstance(state, Mapping) else None
    if not isinstance(messages, (list, tuple)):
        return None
    for one in reversed(messages[-64:]):
        if isinstance(one, Mapping):
            role, text = one.get("role") or one.get("type"), one.get("content")
        elif isinstance(one, tuple) and len(one) == 2:
            role, text = one
        else:
            role, text = getattr(one, "type", None), getattr(one, "content", None)
        if role in roles and text:
            if isinstance(text, list):
                parts = (p.get("text") if isinstance(p, Mapping) else p for p in text)
                text = " ".join(p for p in parts if isinstance(p, str))
            return str(text)
    return None


def _said(role: str, text: str) -> str:
    part = {"type": "text", "content": text[:MOST_BYTES]}
    return json.dumps([{"role": role, "parts": [part]}], ensure_ascii=False)


def _asked(error: BaseException) -> list[str]:
    """What the graph waits for: the values given to `interrupt`."""
    given = error.args[0] if error.args else ()
    values = given if isinstance(given, (list, tuple)) else (given,)
    return [dump(getattr(one, "value", one), 1024) for one in values[:8]]


def _failed(span: Span, error: BaseException) -> None:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    span.set_attribute("langgraph.success", False)
    span.set_attribute("error.type", f"{module}{kind.__qualname__}")
    # A cancelled task is nobody's error.
    if isinstance(error, Exception):
        span.set_status(Status(StatusCode.ERROR, said(error, 1000)))


_installed: list[str] = []
_recorders: list[_Recorder] = []
"""The one that langchain_core calls, once there is one."""


def _register(_module: ModuleType) -> None:
    """Make a handler known to langchain_core, which is being imported."""
    try:
        from langchain_core.callbacks.base import BaseCallbackHandler
        from langchain_core.tracers.context import register_configure_hook

        handler = type("EngramHandler", (_Recorder, BaseCallbackHandler), {})()
        _recorders.append(handler)
        variable = contextvars.ContextVar("engram-langgraph", default=handler)
        register_configure_hook(variable, inheritable=True)
    except Exception as error:  # noqa: BLE001 - the app's import must go on
        _log.warning("engram: nodes of LangGraph are not captured: %s", error)


def _watch_breakpoints(callbacks: ModuleType) -> None:
    """Only handlers of the run's own configuration hear of interrupts: add ours to each run's.

    This comes before `langgraph.pregel.main` takes the functions by name, or into it.
    """
    try:
        watching = type("EngramGraphHandler", (callbacks.GraphCallbackHandler,), {
            "run_inline": True,
            "on_interrupt": _interrupted,
        })()  # fmt: skip
        taken = sys.modules.get("langgraph.pregel.main")
        for name in _MANAGERS:
            ours = _watched(getattr(callbacks, name), watching)
            setattr(callbacks, name, ours)
            if hasattr(taken, name):
                setattr(taken, name, ours)
    except Exception as error:  # noqa: BLE001 - the app's import must go on
        _log.warning("engram: breakpoints of LangGraph are not captured: %s", error)


def _interrupted(_: Any, event: Any) -> None:
    for one in _recorders:
        one.on_interrupt(event)


_MANAGERS: Final = (
    "get_sync_graph_callback_manager_for_config",
    "get_async_graph_callback_manager_for_config",
)


def _watched(original: Callable[..., Any], watching: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def configured(*args: Any, **kwargs: Any) -> Any:
        manager = original(*args, **kwargs)
        try:
            manager.add_handler(watching, inherit=False)
        except Exception:  # noqa: BLE001 - the graph must run
            _log.debug("engram: a graph's breakpoints are not watched", exc_info=True)
        return manager

    return configured


def install() -> str:
    """Register the callbacks when the app imports langchain_core (LangGraph always does)."""
    if not _installed:
        _installed.append("nodes and tools by callbacks of langchain_core, when it is imported")
        wrapt.register_post_import_hook(_register, "langchain_core.tracers.context")
        wrapt.register_post_import_hook(_watch_breakpoints, "langgraph.callbacks")  # since 1.1
    return _installed[0]


__all__ = ["install"]
