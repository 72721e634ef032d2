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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from engram.collector.component import Checked, Kind
from engram.collector.registry import MIB, Api, Size, factories
from engram.exporters.errors import ConfigError, NotFound
from engram.exporters.signals import Signal

DEFAULT_FILE: Final = Path(__file__).with_name("default-config.yaml")
"""The configuration that runs when none is given; equal to `otel-config.yaml` of the repository."""

LOCAL_FILE: Final = "otel-config.yaml"
"""Taken from the working directory when it is there."""

_T = TypeVar("_T")
_Path = tuple[str | int, ...]


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

    signal: Signal
    receivers: tuple[ComponentId, ...]
    processors: tuple[ComponentId, ...]
    exporters: tuple[ComponentId, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file, checked. Components that no pipeline uses are in here too, and do not run."""

    file: Path
    components: Mapping[Kind, Mapping[ComponentId, object]]
    pipelines: tuple[Pipeline, ...]
    extensions: tuple[ComponentId, ...]
    log_level: str

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


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read and check a file.

    Raises:
        ConfigError: with every problem found.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return parse(text, path, environ)


def parse(text: str, path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Check the text of a file. `path` is only for messages."""
    reader = _Reader(path, os.environ if environ is None else environ)
    config = reader.read(text)
    if reader.problems:
        raise ConfigError([text for _, text in sorted(reader.problems, key=lambda one: one[0])])
    return config


def check_rules(config: Config) -> None:
    """Check the operator's rules before anything starts; the built-in ones need no checking.

    Raises:
        ConfigError: with every problem.
    """
    from engram.collector.rules import check

    check(config)


# -- YAML, with lines, duplicates and the environment ----------------------------------------------


class _Expanded(str):
    """Text from the environment that was a whole value: text for a text key, else typed."""

    __slots__ = ()


class _Missing(_Expanded):
    """What was to come from the environment and did not; its problem is noted already."""

    __slots__ = ()


_REFERENCE = re.compile(r"\$\$|\$\{([^{}]*)\}")
_ENV = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class _Reader:
    """One reading of one file: collects the problems and the line of each path."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self.problems: list[tuple[int, str]] = []
        self.lines: dict[_Path, int] = {(): 1}
        self.missing = 0

    def read(self, text: str) -> Config:
        """The tree; meaningless when there are problems."""
        empty = Config(self.path, {}, (), (), "info")
        loader = None
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            top = self._plain(loader, node, (), frozenset()) if node is not None else None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or str(error)
            line = mark.line + 1 if mark else 1
            self.problems.append((line, f"{self.path}:{line}: not valid YAML: {what}"))
            return empty
        except RecursionError:
            self.problem((), "nested too deeply")
            return empty
        finally:
            if loader is not None:
                loader.dispose()
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
        return self._tree(top)

    def problem(self, path: _Path, text: str) -> None:
        """Note a problem at a path, with the line of the nearest known place above it."""
        known = path
        while known not in self.lines:
            known = known[:-1]
        line = self.lines[known]
        where = f"{self.path}:{line}: {_dotted(path)}: " if path else f"{self.path}: "
        self.problems.append((line, where + text))

    def _plain(
        self, loader: yaml.SafeLoader, node: yaml.Node, path: _Path, above: frozenset[int]
    ) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in above:
            self.problem(path, "an alias that contains itself")
            return None
        above |= {id(node)}
        if isinstance(node, yaml.SequenceNode):
            return [
                self._plain(loader, item, (*path, at), above) for at, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.MappingNode):
            self._duplicates(node, path)
            loader.flatten_mapping(node)
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                self.lines[(*path, key)] = key_node.start_mark.line + 1
                found[key] = self._plain(loader, value_node, (*path, key), above)
            return found
        try:
            value = loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self.problem(path, f"cannot be read: {error}")
            return None
        return self._expand(value, path) if isinstance(value, str) else value

    def _duplicates(self, node: yaml.MappingNode, path: _Path) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen and key != "<<":
                self.lines[(*path, key)] = line
                self.problem((*path, key), f"given twice, first in line {seen[key]}")
            seen.setdefault(key, line)

    def _expand(self, text: str, path: _Path) -> str:
        whole = _REFERENCE.fullmatch(text)
        if whole and whole[0] != "$$":
            before = len(self.problems)
            found = self._lookup(whole[1], path)
            return _Expanded(found) if len(self.problems) == before else _Missing()
        return _REFERENCE.sub(
            lambda found: "$" if found[0] == "$$" else self._lookup(found[1], path), text
        )

    def _lookup(self, reference: str, path: _Path) -> str:
        match = _ENV.fullmatch(reference)
        if match is None:
            self.problem(
                path,
                f"${{{reference}}} is not understood; write ${{env:NAME}} or "
                "${env:NAME:-default}",
            )
            return ""
        value = self.environ.get(match[1])
        if value:
            return value
        if match[2] is not None:
            return match[2]
        if value is None:
            self.problem(
                path,
                f"the environment variable {match[1]} is not set; "
                f"set it, or give a default: ${{env:{match[1]}:-...}}",
            )
        return ""

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
            self.path,
            components,
            self._pipelines(service, declared),
            self._references(
                service.get("extensions"), ("service", "extensions"), Kind.EXTENSION, declared
            ),
            self._log_level(service),
        )
        if not self.problems:
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
        path: _Path = ("service", "telemetry")
        telemetry = self._mapping(service.get("telemetry"), path)
        self._unknown_keys(telemetry, ["logs"], path)
        logs = self._mapping(telemetry.get("logs"), (*path, "logs"))
        self._unknown_keys(logs, ["level"], (*path, "logs"))
        levels = Literal["debug", "info", "warn", "error"]
        return str(self._value(levels, logs.get("level", "info"), (*path, "logs", "level")))

    def _pipelines(
        self, service: dict[str, Any], declared: dict[Kind, list[str]]
    ) -> tuple[Pipeline, ...]:
        found: dict[Signal, Pipeline] = {}
        base: _Path = ("service", "pipelines")
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
            signal = Signal(at.type)
            if signal in found:
                self.problem(
                    path, f"a second pipeline for {signal}; one for each signal is supported"
                )
                continue
            found[signal] = Pipeline(
                signal, ids[Kind.RECEIVER], ids[Kind.PROCESSOR], ids[Kind.EXPORTER]
            )
        for signal in Signal:
            if service and signal not in found:
                self.problem(
                    base, f"no pipeline for {signal}; traces, logs and metrics are kept together"
                )
        return tuple(found.values())

    def _references(
        self, body: Any, path: _Path, kind: Kind, declared: dict[Kind, list[str]]
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
        """What a home can mean: one store, and one way of treating what goes into it.

        A commit holds records of all three signals, so receiver, processors and `memory` exporter
        belong to the home: all pipelines list the same. `debug` may be in any of them.
        """
        base: _Path = ("service", "pipelines")
        first = config.pipelines[0]
        for pipeline in config.pipelines:
            path = (*base, pipeline.signal.value)
            memories = [at for at in pipeline.exporters if at.type == "memory"]
            if len(memories) != 1:
                self.problem((*path, "exporters"), "exactly one memory exporter must be listed")
            for kind, mine, others in (
                (Kind.RECEIVER, pipeline.receivers, first.receivers),
                (Kind.PROCESSOR, pipeline.processors, first.processors),
                (
                    Kind.EXPORTER,
                    tuple(memories),
                    tuple(at for at in first.exporters if at.type == "memory"),
                ),
            ):
                if set(mine) != set(others):
                    self.problem(
                        (*path, kind.value),
                        f"must list the same as in {first.signal} "
                        f"({', '.join(map(str, others)) or 'none'}): signals commit together",
                    )
        for kind in (Kind.RECEIVER, Kind.PROCESSOR, Kind.EXTENSION):
            types_ = [at.type for at in config.used(kind)]
            for doubled in sorted({one for one in types_ if types_.count(one) > 1}):
                self.problem(("service",), f"one {doubled} {kind.singular} can run, not two")

    # -- values ------------------------------------------------------------------------------------

    def _mapping(self, body: Any, path: _Path) -> dict[str, Any]:
        if body is None:
            return {}
        if isinstance(body, dict):
            return body
        self.problem(path, f"must be a mapping, not {_kind_of(body)}")
        return {}

    def _unknown_keys(self, body: Mapping[str, Any], known: Iterable[str], path: _Path) -> None:
        known = list(known)
        for key in body:
            if key not in known:
                self.problem((*path, key), f"unknown key{_nearest(key, known)}")

    def _dataclass(self, config: type[_T], body: Any, path: _Path) -> _T | None:
        given = self._mapping(body, path)
        fields = {one.name: one for one in dataclasses.fields(config)}  # type: ignore[arg-type]
        self._unknown_keys(given, fields, path)
        hints = get_type_hints(config)
        before = len(self.problems) + self.missing
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
        if len(self.problems) + self.missing > before:
            return None
        made = config(**values)
        if isinstance(made, Checked):
            for text in made.problems():
                key, colon, rest = text.partition(": ")
                head = re.match(r"\w+", key)
                inside = bool(colon) and head is not None and head[0] in fields
                self.problem((*path, key) if inside else path, rest if inside else text)
        return made

    def _value(self, hint: Any, value: Any, path: _Path) -> Any:
        if isinstance(value, _Missing):
            self.missing += 1
            return None
        if isinstance(value, _Expanded):
            if hint is str or str in get_args(hint):
                return str(value)
            value = _from_text(value)
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
        if origin is not None:  # Mapping[str, Any]
            return _typed(self._mapping(value, path))
        return self._scalar(hint, value, path)

    def _scalar(self, hint: Any, value: Any, path: _Path) -> Any:
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
    return _from_text(value) if isinstance(value, _Expanded) else value


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
    timedelta: ("a duration such as 200ms, 1s or 5m", duration),
    Size: ("a size such as 67108864 or 64MiB", size),
}


def _nested(hint: Any) -> type | None:
    for one in (hint, *get_args(hint)):
        if isinstance(one, type) and dataclasses.is_dataclass(one):
            return one
    return None


def _nearest(name: str, known: Iterable[str], word: str = "supported") -> str:
    known = [str(one) for one in known]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return f"{hint} ({word}: {', '.join(known) or 'none'})"


def _dotted(path: _Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    return {dict: "a mapping", list: "a list", bool: "true or false"}.get(type(value), repr(value))
