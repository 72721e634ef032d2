"""Who it is about: user and session, carried by OpenTelemetry baggage."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current

from engram.instrumentation.api.marks import CARRIED, internal
from engram.instrumentation.api.values import text


class context:
    """All telemetry inside is of this user, session and tenant; for `with` and `async with`."""

    def __init__(
        self, user_id: object = None, session_id: object = None, tenant: object = None
    ) -> None:
        self._carried = dict(zip(CARRIED, (user_id, session_id, tenant), strict=True))
        self._tokens: list[Any] = []

    def __enter__(self) -> Self:
        token = None
        try:
            current = get_current()
            span = trace.get_current_span()
            has = getattr(span, "attributes", None) or {}
            for name, value in self._carried.items():
                if value is not None:
                    current = baggage.set_baggage(name, text(str(value), 500), current)
                    if span.is_recording() and name not in has:
                        span.set_attribute(name, text(str(value), 500))
            token = attach(current)
        except Exception as error:  # noqa: BLE001 - the app must not notice us
            internal(error)
        self._tokens.append(token)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        token = self._tokens.pop() if self._tokens else None
        if token is not None:
            detach(token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.__exit__(kind, error, trace)


def user(user_id: object) -> context:
    """All telemetry inside the block is of this user."""
    return context(user_id=user_id)


def session(session_id: object) -> context:
    """All telemetry inside the block is of this session."""
    return context(session_id=session_id)
