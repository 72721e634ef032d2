"""A newer statement takes the place of an older one about the same subject, which stays.

Only where a type tells the *state* of something (a preference, a setting, the state of a run), its
author said what it is about, and both speak of the same person or service. Everything else that was
said twice stands side by side: whether a text contradicts another one is not for a program to say.
Who is trusted less cannot supersede who is trusted more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from engram.learning.recall.items import Item
from engram.learning.recall.rows import LakeReader, changed

_STATES: Final = ("_preference", "_setting", "_state", "_status", "_profile")
"""Endings of the names of types that tell how something is, not what happened."""

TRUST: Final = {"unknown": 0, "browser": 1, "app": 2, "agent": 2, "operator": 3, "engram": 3}
"""An app and an agent may each take back what the other one said."""

Key = tuple[str, str, str, str, str]
"""Type, subject, run, user, service."""


def key(one: Item) -> Key | None:
    """What a memory tells the state of; None: of nothing."""
    if one.source != "mark" or not one.subject or not one.memory_type.endswith(_STATES):
        return None
    if "duration_ms" in one.meta_data or "started" in one.meta_data:
        return None  # a run from beginning to end: it happened
    run = str(one.meta_data.get("run") or "")
    return _key(one.memory_type, one.subject, run, one.user_id, one.service)


def _key(type_: str, subject: str, run: str, user: str | None, service: str | None) -> Key:
    # What a person prefers is theirs, whichever of the services was told.
    where = "" if user is not None and not type_.endswith("_state") else service or ""
    return type_, subject, run, user or "", where


def superseded(
    lake: LakeReader, items: Sequence[Item], as_of_ns: int | None, hidden: Iterable[str] = ()
) -> list[Item]:
    """The items, those about whose subject something newer was said with its id.

    Costs a query only where an item tells a state.
    """
    keys = {one.id: told for one in items if (told := key(one)) is not None}
    if not keys:
        return list(items)
    newest = _newest(lake, [one for one in items if one.id in keys], as_of_ns, frozenset(hidden))
    shown: list[Item] = []
    for one in items:
        best: tuple[int, str] | None = None
        of = keys.get(one.id)
        for at, id_, trust in newest.get(of, ()) if of else ():
            newer = (at, id_) > (one.time_unix_nano or 0, one.id)
            if newer and TRUST.get(trust or "", 0) >= TRUST.get(one.trust or "", 0):
                best = max(best or (0, ""), (at, id_))
        if best is not None and one.superseded_by is None:
            shown.append(changed(one, superseded_by=best[1]))
        else:
            shown.append(one)
    return shown


def _newest(
    lake: LakeReader, items: Sequence[Item], as_of_ns: int | None, hidden: frozenset[str]
) -> dict[Key, list[tuple[int, str, str | None]]]:
    """Of each key the newest statement of each trust."""
    types = sorted({one.memory_type for one in items})
    subjects = sorted({one.subject for one in items if one.subject})
    since = min(one.time_unix_nano or 0 for one in items)
    until = (1 << 62) if as_of_ns is None else as_of_ns
    marks = [", ".join("?" * len(some)) for some in (types, subjects)]
    rows: list[tuple[Any, ...]] = lake.ask(
        "SELECT type, subject, coalesce(attributes ->> '$.run', ''), user_id, service_name, "
        "time_unix_nano, id, trust FROM lake.memories "
        f"WHERE type IN ({marks[0]}) AND subject IN ({marks[1]}) AND source = 'mark' "
        "AND time_unix_nano BETWEEN ? AND ? "
        "AND json_extract(attributes, '$.duration_ms') IS NULL "
        "AND json_extract(attributes, '$.started') IS NULL "
        "AND (valid_from IS NULL OR valid_from <= ?) "
        "ORDER BY time_unix_nano, id",
        [*types, *subjects, since, until, until],
    )
    found: dict[Key, dict[str | None, tuple[int, str, str | None]]] = {}
    for type_, subject, run, user, service, at, id_, trust in rows:
        if id_ not in hidden:
            of = found.setdefault(_key(type_, subject, run, user, service), {})
            of[trust] = (at, id_, trust)
    return {of: [*some.values()] for of, some in found.items()}


__all__ = ["TRUST", "key", "superseded"]
