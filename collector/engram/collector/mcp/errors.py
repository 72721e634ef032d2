"""Whether an error is known, how often and since when it was seen, and what has helped."""

from __future__ import annotations

import json
from typing import Final

from engram.collector.mcp.reader import Reader
from engram.collector.mcp.text import value
from engram.exporters.errors import NotFound
from engram.learning.recall import Item, Recall, Scope
from engram.learning.recall.attempts import attempts
from engram.learning.recall.fence import lines as item_lines
from engram.learning.recall.known import KnownPattern, Solution
from engram.learning.recall.ranking import wilson
from engram.learning.recall.revisions import UNTRUSTED
from engram.learning.recall.suspects import believed, suspicious


def known_error(
    recall: Recall, reader: Reader, error: str | None, file: str | None, scope: Scope
) -> list[str]:
    """The lines about an error, cleaned."""
    found = recall.known_error(error, file=file, service=scope.service)
    lines = [_MATCH[found.match]]
    solutions: dict[str, Solution | None] = {}
    for pattern in found.patterns:
        lines += _pattern(reader, pattern)
        solutions.update({one.id: one for one in pattern.solutions})
    if error:
        # What was written down names no pattern as a rule: found by its words.
        for item in _searched(recall, error, scope):
            solutions.setdefault(item.id, None)
    told = _solutions(recall, reader, solutions, scope)
    if told:
        lines += ["", "## Solutions", *told]
    elif found.patterns:
        lines.append("No solution is recorded. When you solve it: remember(type=error_solution)")
    if found.similar:
        lines += ["", "## Similar errors (not the same; their solutions may not help)"]
        for pattern in found.similar[:3]:
            lines += _pattern(reader, pattern)
    return lines


_MATCH: Final = {
    "exact": "Seen before:", "file": "Seen in this file:",
    "similar": "Not seen. Only errors like it are known.",
    "none": "Not seen: no error like this is remembered.",
}  # fmt: skip


def error(recall: Recall, reader: Reader, fingerprint: str, scope: Scope) -> list[str]:
    """The lines about the failures of one fingerprint.

    Raises:
        NotFound: there is none.
    """
    rows = reader.ask(
        "SELECT arg_max(attributes, time_unix_nano), arg_max(title, time_unix_nano) "
        "FROM lake.memories WHERE type IN ('system_error', 'ui_error') AND fingerprint = ? "
        "AND (? IS NULL OR service_name = ?)",
        [fingerprint, scope.service, scope.service],
    )
    if not rows or rows[0][1] is None:
        raise NotFound(f"there is no error with the fingerprint {fingerprint}")
    fields = json.loads(rows[0][0] or "{}")
    text = fields.get("stacktrace") or ": ".join(
        str(one) for one in (fields.get("type"), fields.get("message")) if one
    )
    return known_error(recall, reader, str(text or rows[0][1]), None, scope)


def _pattern(reader: Reader, one: KnownPattern) -> list[str]:
    rows = reader.ask(
        "SELECT fingerprint, trace_id FROM lake.memories WHERE id = ? LIMIT 1", [one.memory_id]
    )
    fingerprint, trace = rows[0] if rows else (None, None)
    state = "" if one.state is None else f", state: {value(one.state, 40)}"
    return [
        f"- {value(one.pattern, 120)}: {value(one.title, 200)}",
        f"  seen {one.count:,} times from {one.first_seen:%Y-%m-%d %H:%M} to "
        f"{one.last_seen:%Y-%m-%d %H:%M} UTC in {value(one.service or '?', 60)}, "
        f"{one.users:,} users{state}; {value(one.because, 100)}",
        f"  last id={one.memory_id}"
        + (f", fingerprint={fingerprint}" if fingerprint else "")
        + (f", trace={trace}" if trace else ""),
    ]


def _searched(recall: Recall, error: str, scope: Scope) -> list[Item]:
    """Solutions that somebody wrote down, with most of the error's words."""
    try:
        found = recall.search(
            error[:4_000], scope=scope, types=["error_solution"], limit=20, explain=True
        )
    except NotFound:
        return []
    from engram.exporters.words import terms

    wanted = {term for term in terms(error[:4_000]).parts if not term.isdigit()} - _COMMON
    kept = []
    for one in found.items:
        said = set(one.why.get("matched", ())) - _COMMON
        if wanted and len(said) >= min(6, max(2, len(wanted) / 2)):
            kept.append(one)
    return kept


_COMMON: Final = frozenset(
    {"error", "exception", "file", "line", "py", "js", "in", "most", "recent", "call", "last",
     "traceback", "module", "self", "return", "the", "of", "not", "valueerror", "typeerror"}
)  # fmt: skip
"""Words of every stack: that they match says nothing."""


def _solutions(
    recall: Recall, reader: Reader, found: dict[str, Solution | None], scope: Scope
) -> list[str]:
    """The solutions that may be told, best first."""
    items = recall.many(list(found)[:40])
    records = attempts(reader.ask, items)
    ranked = []
    for id_, item in items.items():
        if scope.service not in (None, item.service):
            continue
        observed, (n, worked) = found[id_], records.get(id_, (0, 0))
        if observed is not None:
            told = (0, 0) if observed.kind == "recorded" else (n, worked)  # it has them already
            n, worked = told[0] + observed.tried, told[1] + observed.worked
        if not offered(item, observed, n, worked):
            continue
        low = wilson(worked, n)[1] if n else 0.0
        ranked.append((-low, -worked, id_, item, n, worked, observed))
    lines: list[str] = []
    for *_, item, n, worked, observed in sorted(ranked, key=lambda one: one[:3])[:5]:
        lines += item_lines(item, most=600)
        tier = "" if observed is None else f", tier {observed.tier}"
        lines.append(f"  {_record(n, worked)}{tier}")
    return lines


def offered(item: Item, observed: Solution | None, n: int, worked: int) -> bool:
    """Whether it may be told as a solution: believed, or an agent's that has worked since."""
    if (n and not worked) or suspicious(item) or item.superseded_by is not None:
        return False
    if observed is not None and observed.tier != "recorded":
        return observed.tier != "refuted"
    if believed(item):
        return True
    return worked > 0 and item.source == "mark" and (item.trust or "unknown") not in UNTRUSTED


def _record(n: int, worked: int) -> str:
    if not n:
        return "never tried, as far as is known; record_outcome tells how it went"
    _, low, high = wilson(worked, n)
    return f"worked {worked} of {n} times (95 %: {low:.0%} to {high:.0%})"


__all__ = ["error", "known_error", "offered"]
