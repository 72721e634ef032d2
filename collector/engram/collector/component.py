"""What a component is: type name, settings, and the contract of its life.

The gesture is the OpenTelemetry Collector's: a name in `otel-config.yaml`, a settings dataclass
with its defaults, and a factory. Settings are data; this module and they import nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Kind(StrEnum):
    """The sections of the file. The value is the section's key."""

    RECEIVER = "receivers"
    PROCESSOR = "processors"
    EXPORTER = "exporters"
    EXTENSION = "extensions"
    CONNECTOR = "connectors"

    @property
    def singular(self) -> str:
        """The word for one of them, for messages."""
        return self.value.removesuffix("s")


class Component(Protocol):
    """Something that runs.

    Constructing MUST do no I/O. `start` does; it MUST raise an `EngramError` when it cannot serve,
    with nothing left running behind it. `shutdown` MUST stop taking work, finish what was taken,
    and be safe twice and without `start`. Components start from the far end of the pipe (store
    first, receivers last) and stop from the near end, so nobody hands work to what has stopped.
    """

    def start(self) -> None:
        """Begin to work."""

    def shutdown(self) -> None:
        """Finish the work and stop."""


@runtime_checkable
class Checked(Protocol):
    """Settings that can be wrong in ways their types do not show."""

    def problems(self) -> Iterator[str]:
        """Say each thing that is wrong, beginning with the name of the key."""
        ...


@dataclass(frozen=True, slots=True)
class Factory:
    """A component type: how it is named in the file, and its settings."""

    kind: Kind
    type: str
    """The name in the file, lower_snake_case."""

    config: Any
    """A frozen dataclass; its field names are the keys and its defaults the defaults."""

    summary: str
    """What it does, for `engram config validate` and the reference."""
