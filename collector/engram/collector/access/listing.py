"""Tokens and lines of the audit log for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def token_lines(tokens: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A table, a line each."""
    rows = [("name", "id", "scopes", "service", "created", "last used", "expires")]
    for one in tokens:
        expires = _day(one["expires"], "never") + (" (over)" if one["expired"] else "")
        rows.append(
            (
                one["name"], one["id"], ",".join(one["scopes"]), one["service"] or "all",
                _day(one["created"]), _day(one["last_used"], "never"), expires,
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def audit_line(entry: Mapping[str, Any]) -> str:
    """One line: when, who, by which way, what, whose, how many."""
    if "bad" in entry:
        return f"(unreadable: {entry['bad']})"
    if entry.get("what") == "continued":
        return "(continued from the file before)"
    whose = " ".join(f"{name}={value}" for name, value in entry.get("scope", {}).items())
    count = entry.get("count", 0)
    parts = (entry.get("at"), entry.get("who"), entry.get("via"), entry.get("what"), whose)
    return "  ".join(str(part) for part in parts if part) + f"  {count} memories"


def _day(at: float | None, none: str = "?") -> str:
    return none if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
