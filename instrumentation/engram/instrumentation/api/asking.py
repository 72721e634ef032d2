"""Questions that run inside a request: one shared client, 150 ms, and a circuit that opens."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from engram.instrumentation.client.synchronous import Client

R = TypeVar("R")

BUDGET_S: Final = 0.15
_LOG: Final = logging.getLogger("engram.instrumentation")
_told: set[str] = set()


@functools.cache
def client() -> Client:
    """The client of what runs inside requests. The environment says where it asks."""
    return Client(timeout_s=BUDGET_S)


def asked(what: str, question: Callable[[], R], otherwise: R) -> R:
    """The answer, or `otherwise` where there is none; the first time the log says why."""
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - the app must not notice us
        if what not in _told:
            _told.add(what)
            _LOG.warning("engram: memory does not answer %s: %s", what, error)
        return otherwise


__all__ = ["BUDGET_S", "asked", "client"]
