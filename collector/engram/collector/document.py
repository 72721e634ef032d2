"""YAML files and `--set` values, merged to one tree whose every value knows where it was said.

Merging is the Collector's: mappings merge key by key, everything else of a later file replaces what
an earlier one says, lists too. The environment is looked up after that, so a variable that only an
overridden value needs may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

Route = tuple[str | int, ...]
"""The keys and indexes that lead to a value."""


class Expanded(str):
    """Text from the environment that was a whole value: text for a text key, else typed."""

    __slots__ = ()


class Missing(Expanded):
    """What was to come from the environment and did not; its problem is noted already."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    source: int
    line: int


_REFERENCE: Final = re.compile(r"\$\$|\$\{([^{}]*)\}|\$\{")
_ENV: Final = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Document:
    """What was read so far, and what is wrong with it."""

    def __init__(self) -> None:
        self.tree: Any = None
        self._names: list[str] = []
        self._places: dict[Route, _Place] = {}
        self._problems: list[tuple[_Place, int, str]] = []

    # -- reading -----------------------------------------------------------------------------------

    def add_file(self, path: Path) -> None:
        """Read a file over what is there."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._names.append(str(path))
            self.note(0, f"{path}: cannot be read: {error}")
            return
        self.add_text(text, str(path))

    def add_text(self, text: str, name: str) -> None:
        """Read a file's text over what is there. `name` is only for messages."""
        self._names.append(name)
        tree, places = self._parse(text, name)
        if tree is None and name != self._names[0] and not places:
            return  # a later file that says nothing
        if self.tree is not None and not isinstance(tree, dict):
            self.note(1, f"{name}: no mapping; it cannot be merged with {self._names[0]}")
            return
        self._merge(tree, places)

    def add_setting(self, text: str) -> None:
        """Read one `key.key=value` over what is there; the value is YAML."""
        key, equals, value = text.partition("=")
        name = f"--set {key}"  # not the value, which may be a secret
        self._names.append(name)
        route: Route = tuple(re.split(r"::|\.", key.strip()))
        if not equals or not all(route):
            self.note(0, f"{name}: write --set key.key=value")
            return
        tree, places = self._parse(value, name)
        whole: dict[Route, _Place] = {(*route, *at): place for at, place in places.items()}
        for length in range(len(route)):
            if route[:length] not in self._places:
                whole[route[:length]] = _Place(len(self._names) - 1, 0)
        whole.setdefault(route, _Place(len(self._names) - 1, 0))
        for step in reversed(route):
            tree = {step: tree}
        self._merge(tree, whole)

    def _merge(self, tree: Any, places: dict[Route, _Place]) -> None:
        self.tree = self._merged(self.tree, tree, ())
        self._places |= places

    def _merged(self, old: Any, new: Any, route: Route) -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            found = dict(old)
            for key, value in new.items():
                found[key] = self._merged(old[key], value, (*route, key)) if key in old else value
            return found
        gone = [one for one in self._places if one[: len(route)] == route and len(one) > len(route)]
        for one in gone:
            del self._places[one]
        return new

    # -- problems ----------------------------------------------------------------------------------

    def note(self, line: int, text: str) -> None:
        """Note a problem that is said in full, at a line of what is being read."""
        self._problems.append((_Place(len(self._names) - 1, line), len(self._problems), text))

    def problem(self, route: Route, text: str) -> None:
        """Note a problem at a route, with the place of the nearest known value above it."""
        known = route
        while known and known not in self._places:
            known = known[:-1]
        place = self._places.get(known, _Place(0, 1))
        name = self._names[place.source] if self._names else "configuration"
        where = name if not route or name.startswith("--set ") else f"{name}:{place.line}"
        where += f": {dotted(route)}: " if route else ": "
        self._problems.append((place, len(self._problems), where + text))

    @property
    def problems(self) -> list[str]:
        """All problems, in the order of files and lines."""
        return [text for _, _, text in sorted(self._problems)]

    # -- YAML --------------------------------------------------------------------------------------

    def _parse(self, text: str, name: str) -> tuple[Any, dict[Route, _Place]]:
        places: dict[Route, _Place] = {}
        loader = None
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is None:
                return None, places
            return self._plain(loader, node, (), frozenset(), places), places
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or str(error)
            line = mark.line + 1 if mark else 1
            self.note(line, f"{name}:{line}: not valid YAML: {what}")
        except RecursionError:
            self.note(1, f"{name}: nested too deeply")
        finally:
            if loader is not None:
                loader.dispose()
        return None, {}

    def _plain(
        self,
        loader: yaml.SafeLoader,
        node: yaml.Node,
        route: Route,
        above: frozenset[int],
        places: dict[Route, _Place],
    ) -> Any:
        source = len(self._names) - 1
        places.setdefault(route, _Place(source, node.start_mark.line + 1))
        if id(node) in above:
            self._note_at(places[route], route, "an alias that contains itself")
            return None
        above |= {id(node)}
        if isinstance(node, yaml.SequenceNode):
            return [
                self._plain(loader, item, (*route, at), above, places)
                for at, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.MappingNode):
            self._duplicates(node, route)
            loader.flatten_mapping(node)
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                places[*route, key] = _Place(source, key_node.start_mark.line + 1)
                found[key] = self._plain(loader, value_node, (*route, key), above, places)
            return found
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._note_at(places[route], route, f"cannot be read: {error}")
            return None

    def _duplicates(self, node: yaml.MappingNode, route: Route) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen and key != "<<":
                place = _Place(len(self._names) - 1, line)
                self._note_at(place, (*route, key), f"given twice, first in line {seen[key]}")
            seen.setdefault(key, line)

    def _note_at(self, place: _Place, route: Route, text: str) -> None:
        where = f"{self._names[place.source]}:{place.line}: {dotted(route)}"
        self.note(place.line, f"{where}: {text}")

    # -- the environment ---------------------------------------------------------------------------

    def expand(self, environ: Mapping[str, str]) -> None:
        """Put in what `${env:NAME}` and `${env:NAME:-default}` mean; `$$` is a dollar sign."""
        self.tree = self._expanded(self.tree, (), environ)

    def _expanded(self, value: Any, route: Route, environ: Mapping[str, str]) -> Any:
        if isinstance(value, dict):
            return {key: self._expanded(one, (*route, key), environ) for key, one in value.items()}
        if isinstance(value, list):
            return [self._expanded(one, (*route, at), environ) for at, one in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        before = len(self._problems)
        whole = _REFERENCE.fullmatch(value)
        if whole and whole[1] is not None:
            found = self._lookup(whole[1], route, environ)
            return Expanded(found) if len(self._problems) == before else Missing()

        def one(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            if match[1] is None:
                self.problem(
                    route, "a ${ without its }, or one within another; for the two signs write $${"
                )
                return ""
            return self._lookup(match[1], route, environ)

        text = _REFERENCE.sub(one, value)
        return text if len(self._problems) == before else Missing()

    def _lookup(self, reference: str, route: Route, environ: Mapping[str, str]) -> str:
        match = _ENV.fullmatch(reference)
        if match is None:
            self.problem(
                route,
                f"${{{reference}}} is not understood; write ${{env:NAME}} or "
                "${env:NAME:-default}",
            )
            return ""
        value = environ.get(match[1])
        if value:
            return value
        if match[2] is not None:
            return match[2]
        if value is None:
            self.problem(
                route,
                f"the environment variable {match[1]} is not set; "
                f"set it, or give a default: ${{env:{match[1]}:-...}}",
            )
        return ""


def dotted(route: Route) -> str:
    """A route as people write it: `a.b[0]`."""
    text = ""
    for part in route:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
