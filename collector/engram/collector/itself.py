"""Which roles tell what they do, and what Engram may change, as the configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from engram.collector.component import Kind
from engram.collector.config import Config
from engram.collector.registry import MemoryExporter
from engram.exporters.ask import ask
from engram.exporters.engine import Engine
from engram.exporters.home import Home
from engram.exporters.itself.notes import NOTES
from engram.exporters.itself.settings import COMPACT
from engram.exporters.itself.told import Teller
from engram.exporters.signals import Encoding, Signal
from engram.learning.itself import OFF, Itself

_SEND_S: Final = 5.0


def settings_of(config: Config) -> Itself:
    """The extension; all off where it does not run. A setting that an operator chose is kept.

    Chosen is what is not the default: a file that spells the defaults out chose nothing.
    """
    told = config.settings(Kind.EXTENSION, "self_optimization", Itself) or OFF
    memory = config.settings(Kind.EXPORTER, "memory", MemoryExporter)
    if memory is not None and memory.compact_interval != MemoryExporter().compact_interval:
        return replace(told, keep=(*told.keep, COMPACT))
    return told


def records(config: Config) -> bool:
    """Whether roles tell what they do."""
    return settings_of(config).record


def may_change(config: Config) -> frozenset[str]:
    """What may be changed, of the settings that no job has."""
    told = settings_of(config)
    return frozenset(one for one in (COMPACT,) if told.may_change(one))


def collect_teller(engine: Engine) -> Teller:
    """For `engram collect`: into its own log, when it committed something of others."""

    def facts() -> Mapping[str, float | int]:
        return {COMPACT: engine.compact_interval_s}

    def send(body: bytes) -> object:
        return engine.admit(Signal.LOGS, body, Encoding.IDENTITY, trusted=True, itself=True)

    return Teller("collect", engine.notes, send, worth=frozenset({"commit"}), facts=facts)


def serve_teller(home: Home) -> Teller:
    """For `engram serve`: by the control socket, when somebody asked something."""

    def send(body: bytes) -> object:
        return ask(
            home, "append", signal=str(Signal.LOGS), body=body, trusted=True, itself=True,
            timeout_s=_SEND_S,
        )  # fmt: skip

    return Teller("serve", NOTES, send, worth=frozenset({"search", "sql", "known", "endpoint"}))


__all__ = ["collect_teller", "may_change", "records", "serve_teller", "settings_of"]
