"""`otel-config.yaml` to a frozen tree, in the OpenTelemetry Collector's grammar.

Every problem is reported at once, each with its file, line and YAML path. What is said of grammar
here is the Collector's: `type/name` ids, null bodies, `${env:NAME:-default}`, unused components.
What is narrower is what one home can mean, and is refused loudly (`_service`).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from engram.collector.component import Checked, Kind
from engram.collector.document import Document, Expanded, Missing, Route
from engram.collector.exporters.settings import OtlpSender
from engram.collector.registry import MIB, Api, OtlpReceiver, Size, factories
from engram.exporters.errors import ConfigError, NotFound
from engram.exporters.signals import Signal

DEFAULT_FILE: Final = Path(__file__).with_name("default-config.yaml")
"""The configuration that runs when none is given; equal to `otel-config.yaml` of the repository."""

LOCAL_FILE: Final = "otel-config.yaml"
"""Taken from the working directory when it is there."""

ENGINE_TYPES: Final = frozenset({"memory_limiter", "batch", "redaction"})
"""Processors that are the engine's own, for all that goes into one home."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ComponentId:
    """`type` or `type/name`."""

    type: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> ComponentId:
        """Split the id. The name may contain slashes."""
        kind, _, name = text.partition("/")
        return cls(kind, name)

    def __str__(self) -> str:
        return f"{self.type}/{self.name}" if self.name else self.type


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Which components one signal goes through."""

    name: str
    """`traces`, or `traces/name`."""

    signal: Signal
    receivers: tuple[ComponentId, ...]
    processors: tuple[ComponentId, ...]
    exporters: tuple[ComponentId, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file, checked. Components that no pipeline uses are in here too, and do not run."""

    files: tuple[Path, ...]
    """What was read, each over those before it."""

    settings_given: tuple[str, ...]
    """The `key.key=value`s that were given over the files."""

    components: Mapping[Kind, Mapping[ComponentId, object]]
    pipelines: tuple[Pipeline, ...]
    extensions: tuple[ComponentId, ...]
    log_level: str

    @property
    def file(self) -> Path:
        """The first file."""
        return self.files[0]

    def used(self, kind: Kind) -> tuple[ComponentId, ...]:
        """The components of a kind that run, in the order of the pipelines."""
        if kind is Kind.EXTENSION:
            return self.extensions
        found = (at for pipeline in self.pipelines for at in getattr(pipeline, kind.value, ()))
        return tuple(dict.fromkeys(found))

    def settings(self, kind: Kind, type_: str, config: type[_T]) -> _T | None:
        """Settings of the one component of a type that runs; None when none does."""
        for at in self.used(kind):
            if at.type == type_:
                return cast(_T, self.components[kind][at])
        return None

    @property
    def api(self) -> Api | None:
        """Settings of the page, None when it is not to be served."""
        return self.settings(Kind.EXTENSION, "api", Api)


def find_files(given: Sequence[str] | None) -> list[Path]:
    """The files named by the arguments, each over those before it, else the one of `find_file`."""
    return [find_file(one) for one in given] if given else [find_file()]


def find_file(given: str | os.PathLike[str] | None = None) -> Path:
    """The file named by the argument, else `ENGRAM_CONFIG`, else `./otel-config.yaml`, else ours.

    Raises:
        NotFound: the file that was named is not there.
    """
    named = given or os.environ.get("ENGRAM_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            raise NotFound(f"no configuration file {path}")
        return path.resolve()
    local = Path(LOCAL_FILE)
    return local.resolve() if local.is_file() else DEFAULT_FILE


def load(
    paths: Path | Sequence[Path],
    environ: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
) -> Config:
    """Read and check one file, or several, each over those before it, then `key.key=value`s.

    Raises:
        ConfigError: with every problem found.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    document = Document()
    for path in paths:
        document.add_file(path)
    for text in settings:
        document.add_setting(text)
    return _check(document, tuple(paths), tuple(settings), environ)


def parse(text: str, path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Check the text of a file. `path` is only for messages."""
    document = Document()
    document.add_text(text, str(path))
    return _check(document, (path,), (), environ)


def _check(
    document: Document,
    paths: tuple[Path, ...],
    settings: tuple[str, ...],
    environ: Mapping[str, str] | None,
) -> Config:
    reader = _Reader(document, paths, settings)
    if not document.problems or isinstance(document.tree, dict):
        config = reader.read(os.environ if environ is None else environ)
        if not document.problems:
            return config
    raise ConfigError(document.problems)


def check_rules(config: Config) -> None:
    """Check the operator's rules before anything starts; the built-in ones need no checking.

    Raises:
        ConfigError: with every problem.
    """
    from engram.collector.rules import check

    check(config)


class _Reader:
    """One reading of a document: from its tree to settings, noting every problem."""

    def __init__(
        self, document: Document, paths: tuple[Path, ...], settings: tuple[str, ...]
    ) -> None:
        self.document = document
        self.paths = paths
        self.set = settings
        self.missing = 0
        self.bad = 0

    def problem(self, route: Route, text: str) -> None:
        """Note a problem at a route."""
        self.bad += 1
        self.document.problem(route, text)

    def read(self, environ: Mapping[str, str]) -> Config:
        """The tree; meaningless when there are problems."""
        empty = Config(self.paths, self.set, {}, (), (), "info")
        top = self.document.tree
        if not isinstance(top, dict):
            self.problem(
                (), "the file is empty or no mapping; it needs receivers, exporters, service"
            )
            return empty
        if "file_format" in top:
            self.problem(
                ("file_format",),
                "this is an OpenTelemetry SDK declarative configuration (OTEL_CONFIG_FILE), for an "
                "instrumented app; Engram takes the OpenTelemetry Collector's grammar: "
                "receivers, processors, exporters, service. See otel-config.yaml in the repository",
            )
            return empty
        self.document.expand(environ)
        return self._tree(self.document.tree)

    # -- the sections ------------------------------------------------------------------------------

    def _tree(self, top: dict[str, Any]) -> Config:
        sections = [kind.value for kind in Kind]
        self._unknown_keys(top, [*sections, "service"], ())
        components: dict[Kind, dict[ComponentId, object]] = {}
        for kind in Kind:
            components[kind] = self._section(kind, top.get(kind.value))
        if "service" not in top:
            self.problem((), "service is missing: it says which components run, in which pipeline")
        service = self._mapping(top.get("service"), ("service",))
        self._unknown_keys(service, ["pipelines", "extensions", "telemetry"], ("service",))
        declared = {
            kind: [str(key) for key in (top.get(kind.value) or ())]
            for kind in Kind
            if isinstance(top.get(kind.value) or {}, dict)
        }
        config = Config(
            self.paths,
            self.set,
            components,
            self._pipelines(service, declared),
            self._references(
                service.get("extensions"), ("service", "extensions"), Kind.EXTENSION, declared
            ),
            self._log_level(service),
        )
        if not self.document.problems:
            self._one_home(config)
        return config

    def _section(self, kind: Kind, body: Any) -> dict[ComponentId, object]:
        found: dict[ComponentId, object] = {}
        known = factories(kind)
        for key, settings in self._mapping(body, (kind.value,)).items():
            at, path = ComponentId.parse(key), (kind.value, key)
            factory = known.get(at.type)
            if factory is None:
                self.problem(path, f"unknown {kind.singular} {at.type!r}{_nearest(at.type, known)}")
            else:
                found[at] = self._dataclass(factory.config, settings, path)
        return found

    def _log_level(self, service: dict[str, Any]) -> str:
        path: Route = ("service", "telemetry")
        telemetry = self._mapping(service.get("telemetry"), path)
        self._unknown_keys(telemetry, ["logs"], path)
        logs = self._mapping(telemetry.get("logs"), (*path, "logs"))
        self._unknown_keys(logs, ["level"], (*path, "logs"))
        levels = Literal["debug", "info", "warn", "error"]
        return str(self._value(levels, logs.get("level", "info"), (*path, "logs", "level")))

    def _pipelines(
        self, service: dict[str, Any], declared: dict[Kind, list[str]]
    ) -> tuple[Pipeline, ...]:
        found: dict[str, Pipeline] = {}
        base: Route = ("service", "pipelines")
        for key, body in self._mapping(service.get("pipelines"), base).items():
            path = (*base, key)
            at = ComponentId.parse(key)
            if at.type not in list(Signal):
                self.problem(path, f"unknown signal {at.type!r}{_nearest(at.type, list(Signal))}")
                continue
            parts = self._mapping(body, path)
            kinds = (Kind.RECEIVER, Kind.PROCESSOR, Kind.EXPORTER)
            self._unknown_keys(parts, [kind.value for kind in kinds], path)
            ids = {
                kind: self._references(parts.get(kind.value), (*path, kind.value), kind, declared)
                for kind in kinds
            }
            for kind in (Kind.RECEIVER, Kind.EXPORTER):
                if not parts.get(kind.value):
                    self.problem(path, f"a pipeline needs at least one {kind.singular}")
            found[key] = Pipeline(
                key, Signal(at.type), ids[Kind.RECEIVER], ids[Kind.PROCESSOR], ids[Kind.EXPORTER]
            )
        for signal in Signal:
            if service and signal not in [one.signal for one in found.values()]:
                self.problem(
                    base, f"no pipeline for {signal}; traces, logs and metrics are kept together"
                )
        return tuple(found.values())

    def _references(
        self, body: Any, path: Route, kind: Kind, declared: dict[Kind, list[str]]
    ) -> tuple[ComponentId, ...]:
        if body is None:
            return ()
        if not isinstance(body, list):
            self.problem(path, f"must be a list of {kind.value}, not {_kind_of(body)}")
            return ()
        found = []
        for index, item in enumerate(body):
            name, here = str(item), declared.get(kind, [])
            if name not in here:
                hint = _nearest(name, here, "declared")
                self.problem((*path, index), f"{name!r} is not declared in {kind.value}{hint}")
            elif ComponentId.parse(name) in found:
                self.problem((*path, index), f"{name!r} is listed twice")
            found.append(ComponentId.parse(name))
        return tuple(found)

    def _one_home(self, config: Config) -> None:
        """What a home can mean: one store, and one way into it for each signal.

        A commit holds records of all three signals, so the receiver, the `memory` exporter and the
        processors that are the engine's own belong to the home: every pipeline into memory lists
        the same. Other processors and exporters are each pipeline's.
        """
        base: Route = ("service", "pipelines")
        into = [one for one in config.pipelines if "memory" in [at.type for at in one.exporters]]
        for signal in Signal:
            names = [one.name for one in into if one.signal is signal]
            if not names:
                self.problem(base, f"no pipeline of {signal} lists the memory exporter")
            elif len(names) > 1:
                self.problem(
                    (*base, names[1], "exporters"),
                    f"memory is listed in {names[0]} already; one pipeline of {signal} fills it",
                )
        for pipeline in config.pipelines:
            self._one_pipeline(config, pipeline)
        if not into:
            return
        first = into[0]
        for pipeline in config.pipelines:
            same = [(Kind.RECEIVER, pipeline.receivers, first.receivers)]
            if pipeline in into:
                for kind, types_ in ((Kind.PROCESSOR, ENGINE_TYPES), (Kind.EXPORTER, {"memory"})):
                    mine, theirs = (
                        tuple(at for at in getattr(one, kind.value) if at.type in types_)
                        for one in (pipeline, first)
                    )
                    same.append((kind, mine, theirs))
            for kind, mine, theirs in same:
                if set(mine) != set(theirs):
                    self.problem(
                        (*base, pipeline.name, kind.value),
                        f"must list the same as in {first.name} "
                        f"({', '.join(map(str, theirs)) or 'none'}): signals commit together",
                    )
        for kind in (Kind.RECEIVER, Kind.PROCESSOR, Kind.EXTENSION):
            named = [at.type for at in config.used(kind)]
            for doubled in sorted({one for one in named if named.count(one) > 1}):
                if kind is not Kind.PROCESSOR or doubled in ENGINE_TYPES:
                    self.problem(("service",), f"one {doubled} {kind.singular} can run, not two")

    def _one_pipeline(self, config: Config, pipeline: Pipeline) -> None:
        base: Route = ("service", "pipelines", pipeline.name)
        types_ = [at.type for at in pipeline.exporters]
        if types_.count("memory") > 1:
            self.problem((*base, "exporters"), "one memory exporter can be listed, not two")
        if "debug" in types_ and "memory" not in types_:
            self.problem(
                (*base, "exporters"), "debug says what memory stored; list it beside memory"
            )
        for number, at in enumerate(pipeline.processors):
            if at.type == "probabilistic_sampler" and pipeline.signal is Signal.METRICS:
                self.problem(
                    (*base, "processors", number), f"{at} samples traces and logs, no metrics"
                )
        receiver = config.settings(Kind.RECEIVER, "otlp", OtlpReceiver) or OtlpReceiver()
        for number, at in enumerate(pipeline.exporters):
            settings = config.components[Kind.EXPORTER].get(at)
            if isinstance(settings, OtlpSender) and settings.reaches(receiver.ports()):
                self.problem(
                    (*base, "exporters", number),
                    f"{at} would send to the receiver of this file, round and round",
                )

    # -- values ------------------------------------------------------------------------------------

    def _mapping(self, body: Any, path: Route) -> dict[str, Any]:
        if body is None:
            return {}
        if isinstance(body, dict):
            return body
        self.problem(path, f"must be a mapping, not {_kind_of(body)}")
        return {}

    def _unknown_keys(self, body: Mapping[str, Any], known: Iterable[str], path: Route) -> None:
        known = list(known)
        for key in body:
            if key not in known:
                self.problem((*path, key), f"unknown key{_nearest(key, known)}")

    def _dataclass(self, config: type[_T], body: Any, path: Route) -> _T | None:
        given = self._mapping(body, path)
        fields = {one.name: one for one in dataclasses.fields(config)}  # type: ignore[arg-type]
        self._unknown_keys(given, fields, path)
        hints = get_type_hints(config)
        before = self.bad + self.missing
        values: dict[str, Any] = {}
        for name in fields:
            nested = _nested(hints[name])
            if name in given:
                values[name] = (
                    self._dataclass(nested, given[name], (*path, name))
                    if nested
                    else self._value(hints[name], given[name], (*path, name))
                )
            elif nested and given and type(None) in get_args(hints[name]):
                values[name] = None  # as `protocols: {http:}`: what is not listed is off
        if self.bad + self.missing > before:
            return None
        made = config(**values)
        if isinstance(made, Checked):
            for text in made.problems():
                key, colon, rest = text.partition(": ")
                steps = _steps(key)
                inside = bool(colon) and bool(steps) and steps[0] in fields
                self.problem((*path, *steps) if inside else path, rest if inside else text)
        return made

    def _value(self, hint: Any, value: Any, path: Route) -> Any:
        if isinstance(value, Missing):
            self.missing += 1
            return None
        if isinstance(value, Expanded):
            if hint is str or str in get_args(hint):
                return str(value)
            value = _from_text(value)
        if hint is Any:
            return _typed(value)
        if dataclasses.is_dataclass(hint):
            return self._dataclass(cast(type[Any], hint), value, path)
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            if value is None:
                return None
            return self._value(
                next(one for one in get_args(hint) if one is not type(None)), value, path
            )
        if origin is Literal:
            options = get_args(hint)
            if value not in options:
                self.problem(path, f"must be one of {', '.join(options)}, not {value!r}")
            return value
        if origin is tuple:
            if not isinstance(value, list):
                self.problem(path, f"must be a list, not {_kind_of(value)}")
                return ()
            item = get_args(hint)[0]
            return tuple(self._value(item, one, (*path, at)) for at, one in enumerate(value))
        if origin is not None and get_args(hint)[1] is str:
            given = self._mapping(value, path)
            return {key: self._as_text(one, (*path, key)) for key, one in given.items()}
        if origin is not None:  # Mapping[str, Any]
            return _typed(self._mapping(value, path))
        return self._scalar(hint, value, path)

    def _as_text(self, value: Any, path: Route) -> str:
        """Text as it was written, numbers and truth values too; from the environment untyped."""
        if isinstance(value, Missing):
            self.missing += 1
        elif isinstance(value, bool):
            return str(value).lower()
        elif not isinstance(value, str | int | float):
            self.problem(path, f"must be text, not {_kind_of(value)}")
        return str(value)

    def _scalar(self, hint: Any, value: Any, path: Route) -> Any:
        name, read = _SCALARS[hint]
        try:
            return read(value)
        except ValueError:
            self.problem(path, f"must be {name}, not {value!r}")
            return None


def _typed(value: Any) -> Any:
    """A free mapping with what came from the environment as typed values."""
    if isinstance(value, dict):
        return {key: _typed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_typed(one) for one in value]
    return _from_text(value) if isinstance(value, Expanded) else value


def _from_text(text: str) -> Any:
    """What YAML makes of a variable's value; the text itself when that is nothing."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return str(text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return str(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip


def duration(value: Any) -> timedelta:
    """A duration in Go's spelling, such as `200ms` or `1h30m`, with `d` for days; 0 needs no unit.

    Raises:
        ValueError: it is none.
    """
    if value == 0 and not isinstance(value, bool):
        return timedelta(0)
    if not isinstance(value, str):
        raise ValueError(value)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(value)
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError as error:
        raise ValueError(value) from error


_UNITS = {
    "": 1,
    "B": 1,
    "KIB": 1024,
    "MIB": MIB,
    "GIB": 1024 * MIB,
    "KB": 1000,
    "MB": 10**6,
    "GB": 10**9,
}


def size(value: Any) -> Size:
    """A size in bytes, or text such as `64MiB`.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return Size(value)
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value) if isinstance(value, str) else None
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(value)
    return Size(int(match[1]) * _UNITS[match[2].upper()])


_SCALARS: Final[dict[Any, tuple[str, Callable[[Any], Any]]]] = {
    str: ("text", _text),
    bool: ("true or false", _truth),
    int: ("a whole number", _integer),
    float: ("a number", _number),
    timedelta: ("a duration such as 200ms, 1s or 5m", duration),
    Size: ("a size such as 67108864 or 64MiB", size),
}


def _steps(key: str) -> Route:
    """`a[0].b` as a route; nothing when it is none."""
    if not re.fullmatch(r"\w+(?:\[\d+\]|\.\w+)*", key):
        return ()
    parts = re.findall(r"(\w+)|\[(\d+)\]", key)
    return tuple(int(index) if index else name for name, index in parts)


def _nested(hint: Any) -> type | None:
    if get_origin(hint) is tuple:
        return None
    for one in (hint, *get_args(hint)):
        if isinstance(one, type) and dataclasses.is_dataclass(one):
            return one
    return None


def _nearest(name: str, known: Iterable[str], word: str = "supported") -> str:
    known = [str(one) for one in known]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return f"{hint} ({word}: {', '.join(known) or 'none'})"


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    return {dict: "a mapping", list: "a list", bool: "true or false"}.get(type(value), repr(value))
