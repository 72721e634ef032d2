"""Names of memory types as people type them: aliases resolved, misspellings pointed out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from engram.collector import query
from engram.exporters.errors import BadRequest
from engram.exporters.home import Home

if TYPE_CHECKING:
    import duckdb


def known_types(connection: duckdb.DuckDBPyConnection, given: Iterable[str]) -> list[str]:
    """The types as they are stored.

    A type that is neither in the lake nor in the taxonomy may still come (an app can mark any
    name), so only what looks like a misspelling of a known one, or cannot be a type, is refused.

    Raises:
        BadRequest: such a name, with the nearest known ones.
    """
    given = list(dict.fromkeys(given))
    if not given:
        return []
    stored = {row[0] for row in connection.execute("SELECT DISTINCT type FROM memories").fetchall()}
    if stored.issuperset(given):
        return given
    from engram.exporters.memories import ALIASES, MEMORY_TYPES

    known = stored | set(MEMORY_TYPES)
    return [_known(ALIASES.get(one, one), known) for one in given]


def checked(home: Home, given: Sequence[str] | None) -> list[str]:
    """`known_types` of a home's lake, which is opened only when there is something to check.

    Raises:
        NotFound: this home has no lake.
        BadRequest: a name that is none.
    """
    if not given:
        return []
    with query.reader(home, threads=1) as connection:
        return known_types(connection, given)


def _known(name: str, known: set[str]) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(known), n=3)
    if near:
        raise BadRequest(f"there is no memory type {name!r}; did you mean {' or '.join(near)}?")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BadRequest(
            f"{name!r} cannot be a memory type: those are lower_snake_case, such as "
            "system_error; engram status lists what there is"
        )
    return name
