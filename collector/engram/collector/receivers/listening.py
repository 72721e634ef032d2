"""What both receivers do alike: check the settings, open once, say the port, close once."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from engram.exporters.errors import ConfigError


class Settings(Protocol):
    """The settings of a receiver."""

    @property
    def endpoint(self) -> str:
        """Where to listen."""
        ...

    def problems(self) -> Iterator[str]:
        """What is wrong with these settings."""
        ...


Running = TypeVar("Running")


class ListeningReceiver(ABC, Generic[Running]):
    """A receiver whose running parts (server, threads) are one `Running`.

    Contract of `start` and `shutdown`: see the package.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that is bound (also when the endpoint says 0); 0 before `start`."""
        return self._port

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the settings are wrong or the port is taken.
        """
        if problems := list(self._settings.problems()):
            raise ConfigError(problems)
        with self._lock:
            if self._running is None:
                self._running, self._port = self._open()

    def shutdown(self, drain_timeout: float = 5.0) -> None:
        """Take no more requests and wait for those under way, at most `drain_timeout` seconds.

        A request that is cut off then was not acknowledged: its sender still has it.
        """
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            self._close(running, drain_timeout)

    @abstractmethod
    def _open(self) -> tuple[Running, int]:
        """Listen at the endpoint; what runs, and its port. MUST leave nothing if it raises."""

    @abstractmethod
    def _close(self, running: Running, drain_timeout: float) -> None:
        """Drain and stop what `_open` started."""
