"""Memory for `create_agent` of LangChain in one line: `middleware=[MemoryMiddleware()]`."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.config import get_config

from engram.instrumentation.api.asking import BUDGET_S
from engram.instrumentation.api.service import MemoryService
from engram.instrumentation.api.values import text
from engram.instrumentation.client.items import ContextWindow

_KEEP_S: Final = 60.0
"""For which the answer to a question is used again: the model is called after each tool."""

_KEPT: Final = 256


class MemoryMiddleware(AgentMiddleware):  # type: ignore[misc, type-arg, unused-ignore]
    """Puts what is remembered before the model, and what is known of a tool's error behind it.

    What is remembered goes into the call of the model alone, fenced, of the user's role: it is in
    no state, so no checkpoint keeps it and it does not pile up. Where memory does not answer within
    `timeout_s` (seconds), the agent goes on as if there were none; after three failures it is not
    asked for a while.

    Of the user: `user_id`, or `configurable.user_id` of the run. With `tell_errors` an exception of
    a tool becomes an answer with status `error` that says what is known of it; without, it is
    raised as ever.
    """

    def __init__(
        self, *, user_id: object = None, max_tokens: int = 2_000, tell_errors: bool = False,
        timeout_s: float = BUDGET_S, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tools = []
        self._user = user_id
        self._max_tokens = max_tokens
        self._tell = tell_errors
        self._async = MemoryService(timeout_s=timeout_s, **settings)
        self._sync = self._async.sync
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()

    def close(self) -> None:
        """Let go of connections and threads. Safe twice; the next question makes new ones."""
        self._async.close_sync()

    # -- before the model --------------------------------------------------------------------------

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """The model's call, with what is remembered of the last thing the user said."""
        user, question = self._asked(request)
        window = self._kept(user, question)
        if window is None:
            window = self._keep(user, question, self._sync.get_context_window(
                user or None, query=question or None, max_tokens=self._max_tokens
            ))  # fmt: skip
        return handler(_with(request, window))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same for async agents; the event loop does not wait."""
        user, question = self._asked(request)
        window = self._kept(user, question)
        if window is None:
            window = self._keep(user, question, await self._async.get_context_window(
                user or None, query=question or None, max_tokens=self._max_tokens
            ))  # fmt: skip
        return await handler(_with(request, window))

    def _asked(self, request: Any) -> tuple[str, str]:
        """Whose memory is asked, and what."""
        user = self._user
        if user is None:
            try:
                user = get_config().get("configurable", {}).get("user_id")
            except RuntimeError:  # outside of a run
                user = None
        return "" if user is None else str(user), _said(request.messages)

    def _kept(self, user: str, question: str) -> str | None:
        with self._lock:
            at, window = self._answers.get((user, question), (float("-inf"), ""))
        return window if time.monotonic() - at < _KEEP_S else None

    def _keep(self, user: str, question: str, window: ContextWindow) -> str:
        told = window.text if len(window) else ""
        if window.items.note and not told:
            return ""  # nobody answered: the next call asks again
        with self._lock:
            self._answers[user, question] = time.monotonic(), told
            self._answers.move_to_end((user, question))
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return told

    # -- behind a tool -----------------------------------------------------------------------------

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """The tool's call; an error is told with what is known of it."""
        try:
            answer = handler(request)
        except Exception as error:
            if not self._tell:
                raise
            answer = _failed(request, error)
        if _is_error(answer):
            answer = _known(answer, self._sync.find_known_error(text(answer.content, 4_000)))
        return answer

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """The same for async agents."""
        try:
            answer = await handler(request)
        except Exception as error:
            if not self._tell:
                raise
            answer = _failed(request, error)
        if _is_error(answer):
            known = await self._async.find_known_error(text(answer.content, 4_000))
            answer = _known(answer, known)
        return answer


def _said(messages: Any) -> str:
    """The last words of the user."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            said = message.text if isinstance(message.text, str) else str(message.content)
            return text(said, 2_000)
    return ""


def _with(request: Any, window: str) -> Any:
    """The call with what is remembered before the last thing that the user said."""
    if not window:
        return request
    messages = list(request.messages)
    at = next((place for place in range(len(messages) - 1, -1, -1)
               if isinstance(messages[place], HumanMessage)), len(messages))  # fmt: skip
    messages.insert(at, HumanMessage(window))
    return request.override(messages=messages)


def _is_error(answer: Any) -> bool:
    return isinstance(answer, ToolMessage) and answer.status == "error"


def _failed(request: Any, error: Exception) -> ToolMessage:
    call = request.tool_call
    return ToolMessage(
        f"{type(error).__qualname__}: {error}", name=call.get("name"), tool_call_id=call["id"],
        status="error",
    )  # fmt: skip


def _known(answer: ToolMessage, known: dict[str, Any]) -> ToolMessage:
    """The answer with what is known of its error; as it was where nothing is."""
    told = known.get("text")
    if not isinstance(told, str) or known.get("match") not in ("exact", "similar"):
        return answer
    if isinstance(answer.content, str):
        content: Any = f"{answer.content}\n\n{told}"
    else:
        content = [*answer.content, {"type": "text", "text": told}]
    return answer.model_copy(update={"content": content})


__all__ = ["MemoryMiddleware"]
