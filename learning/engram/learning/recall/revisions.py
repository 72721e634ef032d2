"""Changes of memories: pinned, hidden, edited, superseded. Events like all else; nothing is lost.

A change is a memory of type `memory_revision` whose fields say what it is about (`target`) and what
is to be done (`action`). The lake keeps both; what is shown is the memory with its changes applied.
Of two changes of one thing the newer by event time counts. A change that a page in a browser or an
unknown source reported is none: anybody can write into a page.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engram.exporters.errors import NotFound
from engram.learning.recall.items import Item
from engram.learning.recall.rows import LakeReader, changed, moment

TYPE: Final = "memory_revision"
ACTIONS: Final = ("edit", "pin", "unpin", "hide", "show", "supersede", "restore")

UNTRUSTED: Final = frozenset(("browser", "unknown"))
"""Who may not change what is remembered, and of whom no solution is believed."""


@dataclass(frozen=True, slots=True, order=True)
class Revision:
    """One change of one memory."""

    time_unix_nano: int
    id: str
    target: str = field(compare=False)
    action: str = field(compare=False)
    fields: Mapping[str, Any] = field(compare=False)
    """Of an edit what is changed; `by` of a supersession; `reason` and `actor`."""


class Revisions:
    """All changes of a home's memories, kept up to date. Safe for several threads.

    They are few, and any memory that is shown may have some, so they are kept in memory.
    """

    def __init__(self, lake: LakeReader) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._seen: object = None
        self._of: dict[str, list[Revision]] = defaultdict(list)

    def of(self, memory_id: str, as_of_ns: int | None = None) -> list[Revision]:
        """The changes of one memory, oldest first; of the time up to `as_of_ns`."""
        with self._lock:
            self._refresh()
            return _until(self._of.get(memory_id, ()), as_of_ns)

    def all(self, as_of_ns: int | None = None) -> dict[str, list[Revision]]:
        """The changes of every memory that has some."""
        with self._lock:
            self._refresh()
            if as_of_ns is None:
                return dict(self._of)
            cut = {id_: _until(some, as_of_ns) for id_, some in self._of.items()}
            return {id_: some for id_, some in cut.items() if some}

    def _refresh(self) -> None:
        """Read them all when the lake has changed: also one that was forgotten is gone then.

        20 ms of CPU in a million memories, on a busy machine; asking what is new costs 65.
        """
        signature = self._lake.signature()
        if signature == self._seen:
            return
        try:
            rows = self._lake.ask(
                "SELECT id, time_unix_nano, attributes, trust FROM lake.memories "
                f"WHERE type = '{TYPE}'"
            )
        except NotFound:
            return
        self._of = defaultdict(list)
        for row in rows:
            self._add(*row)
        for some in self._of.values():
            some.sort()
        self._seen = signature

    def _add(self, id_: str, at: int | None, attributes: str | None, trust: str | None) -> None:
        try:
            fields = json.loads(attributes or "{}")
        except ValueError:
            return
        if not isinstance(fields, dict) or (trust or "unknown") in UNTRUSTED:
            return
        target, action = fields.get("target"), fields.get("action")
        if not isinstance(target, str) or action not in ACTIONS:
            return
        one = Revision(at or 0, id_, target, str(action), fields)
        self._of[target].append(one)


def applied(one: Item, revisions: Sequence[Revision]) -> Item:
    """A memory with its changes, which are in the order of their times."""
    first = one
    for revision in revisions:
        one = _applied(one, revision, first)
    return one


def versions(one: Item, revisions: Sequence[Revision]) -> tuple[Item, ...]:
    """The memory as it was written, and after each change; `why` says who did what."""
    made = [one]
    for revision in revisions:
        said = {
            name: value
            for name in ("action", "actor", "reason", "by")
            if (value := revision.fields.get(name)) is not None
        }
        why = {**said, "revision": revision.id, "at": moment(revision.time_unix_nano)}
        made.append(changed(_applied(made[-1], revision, one), why=why))
    return tuple(made)


def _applied(one: Item, revision: Revision, first: Item) -> Item:
    fields = revision.fields
    match revision.action:
        case "pin" | "unpin":
            return changed(one, pinned=revision.action == "pin")
        case "hide" | "show":
            return changed(one, hidden=revision.action == "hide")
        case "supersede":
            by = fields.get("by")
            return changed(one, superseded_by=by if isinstance(by, str) and by else one.id)
        case "restore":
            return changed(first, pinned=one.pinned)
        case "edit":
            return changed(one, **_edit(one, fields), edited=True)
    return one


def _edit(one: Item, fields: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name in ("title", "content"):
        if isinstance(value := fields.get(name), str):
            changes[name] = value
    tags = _value(fields.get("tags"))
    if isinstance(tags, list):
        changes["tags"] = tuple(sorted({str(tag) for tag in tags}))
    meta = _value(fields.get("meta_data"))
    if isinstance(meta, dict):
        changes["meta_data"] = {**one.meta_data, **meta}
    return changes


def _value(raw: Any) -> Any:
    """A value that may have come as JSON text."""
    if isinstance(raw, str) and raw[:1] in ("[", "{"):
        try:
            return json.loads(raw)
        except ValueError:
            return raw
    return raw


def _until(some: Sequence[Revision], as_of_ns: int | None) -> list[Revision]:
    return [one for one in some if as_of_ns is None or one.time_unix_nano <= as_of_ns]


__all__ = ["ACTIONS", "TYPE", "UNTRUSTED", "Revision", "Revisions", "applied", "versions"]
