"""What OpenTelemetry loads when the distribution is `engram`: settings, providers, captures.

`engram run` selects it; so does `opentelemetry-instrument` with `OTEL_PYTHON_DISTRO=engram` and
`OTEL_PYTHON_CONFIGURATOR=engram`. Every default is only a default: what is in the environment wins.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.sdk._configuration import _OTelSDKConfigurator

from engram.instrumentation.export.settings import DEFAULT_ENDPOINT, GRPC_ENDPOINT

_log = logging.getLogger("engram.instrumentation")

DEFAULTS: Final = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    # A remote parent that is not sampled would take our requests out of memory.
    "OTEL_TRACES_SAMPLER": "always_on",
    # Intents are log events: what a crash can lose is what was not sent yet.
    "OTEL_BSP_SCHEDULE_DELAY": "1000",
    "OTEL_BLRP_SCHEDULE_DELAY": "200",
    "OTEL_BSP_MAX_QUEUE_SIZE": "8192",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "8192",
    "OTEL_METRIC_EXPORT_INTERVAL": "30000",
    "OTEL_METRIC_EXPORT_TIMEOUT": "10000",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database,gen_ai_latest_experimental",
    "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN": "logs/dup",
    "OTEL_PYTHON_LOG_HANDLER_LEVEL": "info",
    "OTEL_PYTHON_LOG_CODE_ATTRIBUTES": "true",
}
"""What is set where the user set nothing."""

_CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_OURS_DISABLED: Final = "ENGRAM_DISABLED_INSTRUMENTATIONS"
"""Which of the disabled ones we disabled: a child process must not take them for the user's."""

_UNCAPPED: Final = {
    "celery": "celery",
    "sqlalchemy": "sqlalchemy",
}
"""Instrumentors that wait for their library, and work with releases beyond the ones they name."""

instrumentors: dict[str, str] = {}
"""What became of each instrumentor; `engram doctor` shows it."""

_LOADING: Final = "opentelemetry.instrumentation.auto_instrumentation._load"

_active = False


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not that the configurator of `opentelemetry-distro`, installed beside us, is not used."""
    return not str(record.msg).startswith("Configuration of %s not loaded")


def is_active() -> bool:
    """Whether this process runs with our distribution."""
    return _active


class EngramDistro(BaseDistro):  # type: ignore[misc]
    """Settings before the SDK is made, and instrumentors that cannot stop each other."""

    def _configure(self, **kwargs: Any) -> None:
        global _active
        _active = True
        logging.getLogger(_LOADING).addFilter(_worth_saying)
        _set_defaults(os.environ)

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Load one; a failure is recorded, and the next one is loaded."""
        if entry_point.name == "fastapi":
            kwargs["exclude_spans"] = [
                "receive",
                "send",
            ]  # two more spans a request, which say nothing
        if entry_point.name == "django":
            self._when_set_up(entry_point, kwargs)
            return
        module = _UNCAPPED.get(entry_point.name)
        if module is None or module in sys.modules:
            self._load(entry_point, kwargs)
            return
        # Their instrumentors import them: seconds, in a program that may never use them.
        instrumentors[entry_point.name] = "on when imported"
        wrapt.register_post_import_hook(lambda _: self._load(entry_point, kwargs), module)

    def _when_set_up(self, entry_point: EntryPoint, kwargs: dict[str, Any]) -> None:
        """Load Django's when the app sets Django up.

        It reads the settings. Before the app has said which they are, or before its folder is on
        the path, it would configure empty ones in their place, and the app would run with those.
        """
        instrumentors[entry_point.name] = "on when Django is set up"

        def wrap(django: Any) -> None:
            original = django.setup

            @functools.wraps(original)
            def setup(*args: Any, **more: Any) -> Any:
                if instrumentors[entry_point.name] == "on when Django is set up":
                    self._load(entry_point, kwargs)
                return original(*args, **more)

            django.setup = setup

        wrapt.register_post_import_hook(wrap, "django")

    def _load(self, entry_point: EntryPoint, kwargs: dict[str, Any]) -> None:
        try:
            super().load_instrumentor(entry_point, **kwargs)
            instrumentors[entry_point.name] = "on"
        except ImportError as error:  # httpx2 where there is only httpx, and the like
            instrumentors[entry_point.name] = f"off: {error}"
        except Exception as error:  # noqa: BLE001 - the app must start, whatever is wrong
            instrumentors[entry_point.name] = f"failed: {type(error).__name__}: {error}"
            _log.warning("engram: instrumentor %s is off", entry_point.name, exc_info=True)


class EngramConfigurator(_OTelSDKConfigurator):
    """The SDK's providers, with processors of ours before the exporters."""

    def _configure(self, **kwargs: Any) -> None:
        from engram.instrumentation.export.sending import hurry_at_exit
        from engram.instrumentation.processors import log_processors, span_processors
        from engram.instrumentation.propagation import keep_baggage_here

        if not os.environ.get("OTEL_CONFIG_FILE"):
            kwargs["span_processors"] = [*kwargs.get("span_processors", ()), *span_processors()]
            kwargs["log_record_processors"] = [
                *kwargs.get("log_record_processors", ()),
                *log_processors(),
            ]
        super()._configure(**kwargs)  # type: ignore[no-untyped-call]
        if not os.environ.get("OTEL_PROPAGATORS", "").strip():
            keep_baggage_here()
        hurry_at_exit()


def before() -> None:
    """The `opentelemetry_pre_instrument` hook."""


def after() -> None:
    """The `opentelemetry_post_instrument` hook: what no instrumentor sees.

    It is called in every process that anyone instruments; it acts only with our distribution.
    """
    if not _active:
        return
    from engram.instrumentation import capture

    _say_what_is_off()
    _uncap()
    capture.install_all()


def _set_defaults(environment: Any) -> None:
    has_endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    for signal in ("TRACES", "LOGS", "METRICS"):
        environment.setdefault(f"OTEL_{signal}_EXPORTER", _exporter(environment, signal))
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
    if not has_endpoint:
        grpc = environment["OTEL_EXPORTER_OTLP_PROTOCOL"].strip() == "grpc"
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = GRPC_ENDPOINT if grpc else DEFAULT_ENDPOINT
    wanted = environment.get("ENGRAM_CAPTURE_CONTENT", "").strip().lower()
    no_content = wanted in ("false", "0", "no", "off")
    environment.setdefault(_CONTENT, "NO_CONTENT" if no_content else "EVENT_ONLY")
    ours = _disabled(environment, _OURS_DISABLED)
    users = _disabled(environment, _DISABLED) - ours
    ours = set()
    if native_fastapi() and "fastapi" not in users:
        ours.add("fastapi")
        instrumentors["fastapi"] = "off: FastAPI reports by itself (fastapi.telemetry)"
    for name in set() if "*" in users else {"openai", "anthropic", "google-genai"} - users:
        ours.add(name)  # the capture `genai` waits for the app to import them
        instrumentors[name] = "left to the capture genai"
    for name in _UNCAPPED:
        if name not in users and "*" not in users and _capped(name):
            ours.add(name)
    if users | ours:
        environment[_DISABLED] = ",".join(sorted(users | ours))
        environment[_OURS_DISABLED] = ",".join(sorted(ours))
    if not users & {"anthropic", "*"}:
        environment.setdefault("ANTHROPIC_OPEN_TELEMETRY", "false")  # else two spans for each call


def _exporter(environment: Any, signal: str) -> str:
    """Ours speaks http/protobuf; a user who wants another protocol gets OpenTelemetry's."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL")
    protocol = own or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    return "engram_otlp" if protocol.strip() == "http/protobuf" else "otlp"


def _disabled(environment: Any, name: str) -> set[str]:
    return {one.strip() for one in environment.get(name, "").split(",")} - {""}


def native_fastapi() -> bool:
    """Whether the installed FastAPI reports by itself (0.142 and later), without importing it."""
    try:
        spec = importlib.util.find_spec("fastapi")
    except (ImportError, ValueError):
        return False
    places = (spec.submodule_search_locations or ()) if spec else ()
    return any((Path(place) / "telemetry").is_dir() for place in places)


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group="opentelemetry_instrumentor", name=name)), None)


def _capped(name: str) -> str:
    """Why the instrumentor would not load, if that is the release of the library alone."""
    try:
        entry = _entry_point(name)
        conflict = get_dist_dependency_conflicts(entry.dist) if entry and entry.dist else None
        found = conflict is not None and (conflict.found or conflict.found_any)
        return str(conflict) if found else ""
    except Exception:  # noqa: BLE001 - a broken package of somebody else's
        return ""


def _uncap() -> None:
    """Instrument beyond the release an instrumentor was written for, once the app imports it."""
    for name in _disabled(os.environ, _OURS_DISABLED) & set(_UNCAPPED):
        entry = _entry_point(name)
        if entry is None:
            continue
        why = f"{_version(name)} is newer than its instrumentor knows"
        instrumentors[name] = f"on when imported: {why}"

        def instrument(_: Any, entry: EntryPoint = entry, why: str = why) -> None:
            try:
                entry.load()().instrument(skip_dep_check=True)
                instrumentors[entry.name] = f"on: {why}"
            except ImportError as error:  # SQLAlchemy 2.1 without greenlet: all but its async part
                part = str(error).partition(".")[0]
                instrumentors[entry.name] = f"on in part: {part} ({why})"
            except Exception as error:  # noqa: BLE001 - the app must go on
                instrumentors[entry.name] = f"failed: {type(error).__name__}: {error} ({why})"
                _log.warning("engram: %s is not captured: %s", entry.name, error)

        wrapt.register_post_import_hook(instrument, _UNCAPPED[name])


def _say_what_is_off() -> None:
    """Why instrumentors were not loaded: OpenTelemetry says it to a log that nobody reads."""
    users = _disabled(os.environ, _DISABLED)
    for entry in entry_points(group="opentelemetry_instrumentor"):
        if entry.name in instrumentors:
            continue
        if entry.name in users or "*" in users:
            instrumentors[entry.name] = f"off: in {_DISABLED}"
        else:
            why = _capped(entry.name)
            instrumentors[entry.name] = (
                f"off: {why}" if why else "off: its library is not installed"
            )


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


__all__ = [
    "DEFAULTS",
    "EngramConfigurator",
    "EngramDistro",
    "after",
    "before",
    "instrumentors",
    "is_active",
    "native_fastapi",
]
