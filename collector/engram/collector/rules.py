"""The operator's own rules, from `otel-config.yaml` and its `rules_file`, checked with places.

```yaml
exporters:
  memory:
    rules_file: my-rules.yaml   # the same keys: rules, disabled; beside the configuration
    rules: [{name: ..., ...}]   # a rule of a built-in one's name takes its place
    disabled: [system_event]    # built-in rules that are not wanted
```
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from engram.collector.component import Kind
from engram.collector.config import Config
from engram.collector.registry import MemoryExporter
from engram.exporters.errors import ConfigError

_FILE_KEYS: Final = ("rules", "disabled")
_STEP: Final = re.compile(r"\.([^.\[\]:\s]+)|\[(\d+)\]")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_SPECIAL: Final = re.compile(
    r"[][\\.+*?()|{}^$#&~-]"
)  # what Rust's `regex` reads as more than itself
_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Given:
    """One rule of the operator's, and where it stands."""

    rule: Any
    document: _Document
    path: _Path

    @property
    def name(self) -> str | None:
        name = self.rule.get("name") if isinstance(self.rule, Mapping) else None
        return name if isinstance(name, str) else None


class _Document:
    """A YAML file with the line of each path in it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.data: Any = None
        self.problems: list[str] = []
        self._lines: dict[_Path, int] = {(): 1}

    @classmethod
    def read(cls, file: Path, *, only_lines: bool = False) -> _Document:
        """Read a file; what is wrong with it as YAML is among its problems.

        With `only_lines` its values are somebody else's matter.
        """
        made = cls(file)
        try:
            loader = yaml.SafeLoader(file.read_text("utf-8"))
            try:
                node = loader.get_single_node()
                if node is not None:
                    made._walk(node, ())
                    made.data = None if only_lines else loader.construct_document(node)
            finally:
                loader.dispose()
        except FileNotFoundError:
            made.problems.append(f"{file}: there is no such file; rules_file names it")
        except (OSError, UnicodeDecodeError) as error:
            made.problems.append(f"{file}: cannot be read: {error}")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or str(error)
            made.problems.append(f"{file}:{mark.line + 1 if mark else 1}: not valid YAML: {what}")
        except (RecursionError, ValueError) as error:
            made.problems.append(f"{file}: cannot be read: {error}")
        return made

    def _walk(self, node: yaml.Node, path: _Path) -> None:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for at, item in enumerate(node.value):
                self._walk(item, (*path, at))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, str(key.value))
                if inner in self._lines:
                    first = self._lines[inner]
                    self.problems.append(
                        f"{self.file}:{key.start_mark.line + 1}: {_dotted(inner)}: given twice, "
                        f"first in line {first}"
                    )
                self._lines[inner] = key.start_mark.line + 1
                self._walk(value, inner)

    def place(self, path: _Path) -> str:
        """`file:line: dotted.path`, the line of the nearest known place above it."""
        known = path
        while known not in self._lines:
            known = known[:-1]
        return f"{self.file}:{self._lines[known]}: {_dotted(path)}"


def rules_of(config: Config) -> tuple[Mapping[str, Any], ...]:
    """The operator's rules as the engine takes them: those of the file, then the others.

    Raises:
        ConfigError: the rules file cannot be read, or a name is given twice or unknown.
    """
    given, problems = _given(config)
    if problems:
        raise ConfigError(problems)
    return (*(one.rule for one in given), *_assistant(config))


def check(config: Config) -> None:
    """Check the operator's rules before anything starts; the built-in ones need no checking.

    Raises:
        ConfigError: with every problem, each with its file and line.
    """
    given, problems = _given(config)
    if not given and not problems and not _assistant(config):
        return
    from engram.exporters.rules.load import load
    from engram.exporters.rules.trial import trial

    for one in given:
        problems += _style(one)
    try:
        rules = load([*(one.rule for one in given), *map(dict, _assistant(config))])
    except ConfigError as error:
        problems += [_placed(problem, given) for problem in error.problems]
    else:
        if not problems:
            names = frozenset(one.name or "" for one in given)
            problems += [_placed(problem, given) for problem in trial(rules, names)]
    if problems:
        raise ConfigError(problems)


def _given(config: Config) -> tuple[list[_Given], list[str]]:
    memory = config.settings(Kind.EXPORTER, "memory", MemoryExporter)
    if memory is None or not (memory.rules or memory.rules_file or memory.disabled):
        return [], []
    at = next(at for at in config.used(Kind.EXPORTER) if at.type == "memory")
    base: _Path = (Kind.EXPORTER.value, str(at))
    main = _Document.read(config.file, only_lines=True)
    main.problems.clear()  # the reader of the configuration told them
    given: list[_Given] = []
    disabled: list[tuple[Any, _Document, _Path]] = []
    problems: list[str] = []
    if memory.rules_file:
        other = _Document.read(config.file.parent / Path(memory.rules_file).expanduser())
        problems += other.problems
        if not other.problems:
            problems += _file(other, given, disabled)
    given += [_Given(rule, main, (*base, "rules", i)) for i, rule in enumerate(memory.rules)]
    disabled += [(name, main, (*base, "disabled", i)) for i, name in enumerate(memory.disabled)]
    problems += _twice(given)
    problems += _switched_off(disabled, given)
    return given, problems


def _assistant(config: Config) -> tuple[Mapping[str, Any], ...]:
    """The condition `assistant` with the configured name, where that is another one."""
    memory = config.settings(Kind.EXPORTER, "memory", MemoryExporter)
    if memory is None or memory.assistant.lower() == MemoryExporter().assistant.lower():
        return ()
    name = _SPECIAL.sub(r"\\\g<0>", memory.assistant)
    condition = {"value": "agent", "matches": f"^(?i:{name})$"}
    return ({"name": "assistant", "condition": condition},)


def _file(
    document: _Document, given: list[_Given], disabled: list[tuple[Any, _Document, _Path]]
) -> Iterator[str]:
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        yield f"{document.file}: must be a mapping with the keys {' and '.join(_FILE_KEYS)}"
        return
    for key in data:
        if key not in _FILE_KEYS:
            yield f"{document.place((str(key),))}: unknown key{_near(str(key), _FILE_KEYS)}"
    for key in _FILE_KEYS:
        if not isinstance(data.get(key) or [], list):
            yield f"{document.place((key,))}: must be a list"
            data[key] = []
    given += [
        _Given(rule, document, ("rules", i)) for i, rule in enumerate(data.get("rules") or [])
    ]
    disabled += [
        (name, document, ("disabled", i)) for i, name in enumerate(data.get("disabled") or [])
    ]


def _twice(given: list[_Given]) -> Iterator[str]:
    first: dict[str, _Given] = {}
    for one in given:
        if one.name is None:
            continue
        before = first.setdefault(one.name, one)
        if before is not one:
            yield (
                f"{one.document.place(one.path)}: a second rule {one.name!r}, the first is in "
                f"{before.document.place(before.path)}; give it another name"
            )


def _switched_off(
    disabled: list[tuple[Any, _Document, _Path]], given: list[_Given]
) -> Iterator[str]:
    """Turns `disabled` into rules that are off."""
    if not disabled:
        return
    from engram.exporters.rules.load import shipped

    known = tuple(rule["name"] for rule in yaml.safe_load(shipped())["rules"])
    own = {one.name for one in given}
    for name, document, path in disabled:
        if name in own:
            yield f"{document.place(path)}: {name!r} is a rule of your own; take it out there"
        elif name not in known:
            yield (
                f"{document.place(path)}: no built-in rule {name!r}{_near(str(name), known)}; "
                "engram rules list shows them"
            )
        else:
            own.add(name)
            given.append(_Given({"name": name, "enabled": False}, document, path))


def _style(one: _Given) -> Iterator[str]:
    """What the grammar lets through and nobody means."""
    if not isinstance(one.rule, Mapping):
        return
    place = one.document.place
    if one.name is not None and not _NAME.fullmatch(one.name):
        yield (
            f"{place((*one.path, 'name'))}: {one.name!r}: a name has lower-case letters, digits "
            "and _, such as slow_checkout"
        )
    type_ = one.rule.get("type")
    if isinstance(type_, str) and "{" not in type_ and not _NAME.fullmatch(type_):
        yield (
            f"{place((*one.path, 'type'))}: {type_!r}: a type has lower-case letters, digits "
            "and _, such as business_decision"
        )
    importance = one.rule.get("importance")
    if (
        isinstance(importance, int | float)
        and not isinstance(importance, bool)
        and not 0 <= importance <= 1
    ):
        yield f"{place((*one.path, 'importance'))}: {importance} is not between 0 and 1"
    for key in ("enabled", "exclusive"):
        if key in one.rule and not isinstance(one.rule[key], bool):
            yield f"{place((*one.path, key))}: must be true or false, not {one.rule[key]!r}"


def _placed(problem: str, given: list[_Given]) -> str:
    """A problem of the rule parser, with the file and line of what it is about."""
    for at, one in enumerate(given):
        for prefix in (f"rules.{one.name}", f"rules.extra[{at}]"):
            rest = problem.removeprefix(prefix)
            if rest == problem or rest[:1] not in (".", "[", ":"):
                continue
            path, what = list(one.path), rest
            while step := _STEP.match(what):
                path.append(step[1] if step[1] is not None else int(step[2]))
                what = what[step.end() :]
            if what.startswith(": missing: ") and one.name in _shipped_names():
                what += (
                    "; a rule that takes the place of a built-in one is a whole rule "
                    "(to switch it off, list it in disabled)"
                )
            return one.document.place(tuple(path)) + what
    return problem


def _shipped_names() -> tuple[str, ...]:
    from engram.exporters.rules.load import shipped

    return tuple(rule["name"] for rule in yaml.safe_load(shipped())["rules"])


def _near(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})"


def _dotted(path: _Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
