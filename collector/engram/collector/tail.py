"""`engram tail`: what comes into the lake, line by line, as it comes.

It follows `(collector, sequence)`, the number of the commit: whole commits, in order, each once.
So there is no gap and no double, whatever compaction does to the files meanwhile, and a collector
that restarts goes on where it stopped. While nothing is committed, a poll is two `stat` calls.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from engram.collector import output, query
from engram.collector.types import checked
from engram.exporters import own
from engram.exporters.errors import NotFound
from engram.exporters.home import Home

if TYPE_CHECKING:
    import duckdb

Kind = Literal["memories", "spans", "logs"]

POLL_S: Final = 0.5
_SHOWN: Final = 100_000
"""Ids of memories that were shown: one that is completed later is not shown again."""

_PAGE_COMMITS: Final = 100

_MOST_WAIT_S: Final = 5.0
"""Between tries while the lake cannot be read."""

_STYLES: Final = {"time": "2", "type": "36", "bad": "1;31", "service": "35", "end": "2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to show."""

    kind: Kind = "memories"
    types: tuple[str, ...] = ()
    service: str | None = None
    errors: bool = False
    last: int = 10
    """So many of what is there already."""


_ERRORS: Final[dict[Kind, str]] = {
    "memories": "(type IN ('system_error', 'ui_error') OR outcome = 'error')",
    "spans": "status_code = 2",
    "logs": "(severity_number >= 17 OR exception_type IS NOT NULL)",
}
_TIME: Final[dict[Kind, str]] = {
    "memories": "time_unix_nano",
    "spans": "start_time_unix_nano",
    "logs": "coalesce(nullif(time_unix_nano, 0), observed_time_unix_nano)",
}
_COLUMNS: Final[dict[Kind, str]] = {
    "memories": (
        "id, type, title, content, importance, outcome, duration_ns, service_name, subject, "
        "user_id, session_id, conversation_id, fingerprint, tags, trace_id, span_id, attributes"
    ),
    "spans": (
        "name, kind, status_code, status_message, "
        "end_time_unix_nano - start_time_unix_nano AS duration_ns, service_name, "
        "http_response_status_code, trace_id, span_id, parent_span_id, attributes"
    ),
    "logs": (
        "severity_number, severity_text, event_name, body, exception_type, service_name, "
        "trace_id, span_id, attributes"
    ),
}

Row = dict[str, Any]


class Follower:
    """Reads what is new in a lake. Not for several threads; `close` when done."""

    def __init__(self, home: Home, selection: Selection) -> None:
        self._home = home
        self._selection = selection
        self._lake: duckdb.DuckDBPyConnection | None = None
        self._marks: dict[str, int] = {}
        self._shown: OrderedDict[str, None] = OrderedDict()
        self._seen: object = None
        kind = selection.kind
        where = [_ERRORS[kind]] if selection.errors else []
        self._bound: list[Any] = []
        if selection.service is not None:
            where.append("service_name = ?")
            self._bound.append(selection.service)
        if selection.types:
            where.append(f"type IN ({', '.join('?' * len(selection.types))})")
            self._bound += selection.types
        if kind == "logs":
            where.append(f"scope_name IS DISTINCT FROM '{own.ITSELF}'")
        self._where = " AND ".join(["true", *where])
        self._columns = f"{_TIME[kind]} AS time_ns, collector, sequence, {_COLUMNS[kind]}"

    def begin(self) -> list[Row]:
        """The last rows that are there, oldest first; from here on `new` has what follows."""
        self._seen = self._signature()
        lake = self._open()
        self._marks = self._latest(lake)
        kind, last = self._selection.kind, self._selection.last
        rows: list[Row] = []
        for collector, mark in self._marks.items():
            rows += self._rows(
                f"WHERE {self._where} AND collector = ? AND sequence <= ? "
                f"ORDER BY time_ns DESC, sequence DESC LIMIT {int(last)}",
                [collector, mark],
            )
            if kind == "memories":
                self._remember_before(lake, collector, mark)
        rows.sort(key=lambda row: (row["time_ns"] or 0, row["sequence"]))
        rows = rows[len(rows) - last :] if len(rows) > last else rows
        for row in rows:
            if "id" in row:
                self._remember(row["id"])
        return rows

    def new(self) -> Iterator[Row]:
        """What was committed since the last call, commit by commit."""
        signature = self._signature()
        if signature is None or signature == self._seen:
            return
        lake = self._open()
        for collector, latest in self._latest(lake).items():
            mark = self._marks.get(collector, 0)
            if latest < mark:  # another lake in the same place
                mark = 0
            while mark < latest:  # in pages: a laptop that slept may have missed a lot
                upto = min(mark + _PAGE_COMMITS, latest)
                yield from self._commits(collector, mark, upto)
                self._marks[collector] = mark = upto
        self._seen = signature

    def close(self) -> None:
        """Let go of the lake. Safe twice; the next read attaches it again."""
        lake, self._lake = self._lake, None
        if lake is not None:
            lake.close()

    def _commits(self, collector: str, mark: int, upto: int) -> Iterator[Row]:
        found = self._rows(
            f"WHERE {self._where} AND collector = ? AND sequence > ? AND sequence <= ? "
            "ORDER BY sequence, time_ns",
            [collector, mark, upto],
        )
        for row in found:
            if "id" in row:
                if row["id"] in self._shown:
                    continue
                self._remember(row["id"])
            yield row

    def _rows(self, rest: str, bound: Sequence[Any]) -> list[Row]:
        cursor = self._open().execute(
            f"SELECT {self._columns} FROM {self._selection.kind} {rest}", [*self._bound, *bound]
        )
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _latest(self, lake: duckdb.DuckDBPyConnection) -> dict[str, int]:
        rows = lake.execute(
            "SELECT collector, max(sequence) FROM commits GROUP BY collector ORDER BY collector"
        ).fetchall()
        return {str(collector): int(latest) for collector, latest in rows}

    def _remember_before(self, lake: duckdb.DuckDBPyConnection, collector: str, mark: int) -> None:
        """The newest memories before the start: what completes one of them is nothing new."""
        ids = lake.execute(
            f"SELECT id FROM memories WHERE {self._where} AND collector = ? AND sequence <= ? "
            "AND sequence > ? ORDER BY sequence",
            [*self._bound, collector, mark, mark - 600],
        ).fetchall()
        for (id_,) in ids[-_SHOWN:]:
            self._remember(id_)

    def _remember(self, id_: str) -> None:
        self._shown[id_] = None
        if len(self._shown) > _SHOWN:
            self._shown.popitem(last=False)

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._lake is None:
            self._lake = query.open_reader(self._home, threads=1, memory_limit="256MB")
        return self._lake

    def _signature(self) -> object:
        """Changes with every commit; None while there is no lake."""
        found = []
        for path in (self._home.catalog, self._home.catalog.with_name("catalog.sqlite-wal")):
            try:
                facts = os.stat(path)
            except FileNotFoundError:
                continue
            found.append((facts.st_ino, facts.st_mtime_ns, facts.st_size))
        return tuple(found) or None


def run(home: Home, selection: Selection, *, follow: bool, as_json: bool, out: TextIO) -> None:
    """Print what there is, and then what comes until Ctrl-C or until nobody reads `out`.

    Raises:
        NotFound: this home has neither a lake nor a collector that will make one.
        BadRequest: a type that is none.
    """
    import duckdb

    if not home.catalog.exists() and not (follow and home.control.exists()):
        raise NotFound(f"no lake in {home.root}; start one with: engram up --home {home.root}")
    show = _json_line if as_json else Lines(selection.kind, out).line

    def write(rows: Iterator[Row] | list[Row]) -> None:
        for row in rows:
            out.write(show(row) + "\n")
            out.flush()

    if home.catalog.exists():
        selection = replace(selection, types=tuple(checked(home, selection.types)))
    follower = Follower(home, selection)
    begun, wait, cause = False, POLL_S, ""
    try:
        while True:
            try:
                write(follower.new() if begun else follower.begin())
                begun, wait, cause = True, POLL_S, ""
            except (duckdb.Error, NotFound) as error:
                if not follow:
                    raise
                follower.close()  # a collector that stops or starts: the next try attaches anew
                if str(error) != cause and wait > POLL_S:
                    sys.stderr.write(
                        f"engram: waiting for the lake: {output.printable(str(error))}\n"
                    )
                    cause = str(error)
                wait = min(wait * 2, _MOST_WAIT_S)
            if not follow or not _wait(out, wait):
                return
    finally:
        follower.close()


def _wait(out: TextIO, seconds: float) -> bool:
    """Sleep; False as soon as nobody reads the pipe any more."""
    try:
        descriptor = out.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        mode = 0
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        time.sleep(seconds)
        return True
    poll = select.poll()
    poll.register(descriptor, 0)  # errors and hang-ups are reported unasked
    return not poll.poll(seconds * 1000)


# -- lines -----------------------------------------------------------------------------------------


def _json_line(row: Row) -> str:
    made = {"time": _time(row["time_ns"]), **row}
    if isinstance(made.get("attributes"), str):
        made["attributes"] = json.loads(made["attributes"])
    if isinstance(made.get("body"), str):
        made["body"] = json.loads(made["body"])
    return output.dumps(made)


class Lines:
    """One readable line for a row; colours only where a terminal wants them."""

    def __init__(self, kind: Kind, out: TextIO) -> None:
        self._make: Callable[[Row], tuple[str, str, str, bool]] = {
            "memories": _memory, "spans": _span, "logs": _log
        }[kind]  # fmt: skip
        self._width = output.terminal_width(out)
        self._colour = output.wants_colour(out)
        self._label = {"memories": 17, "spans": 8, "logs": 5}[kind]

    def line(self, row: Row) -> str:
        """Time, type, service, what, and how it went."""
        label, text, end, bad = self._make(row)
        when = _time(row["time_ns"])
        service = output.printable(row["service_name"] or "-")
        label = label.ljust(self._label)
        text = output.printable(text or "-")
        end = output.printable(end)
        if self._width is not None:
            room = self._width - len(when) - len(label) - output.text_width(service) - len(end) - 8
            text = output.shorten(text, max(room, 20))
        styles = ("time", "bad" if bad else "type", "service", "", "bad" if bad else "end")
        parts = [
            self._styled(style, part)
            for style, part in zip(styles, (when, label, service, text, end), strict=True)
            if part
        ]
        return "  ".join(parts)

    def _styled(self, style: str, text: str) -> str:
        if not self._colour or style not in _STYLES:
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _time(nanoseconds: int | None) -> str:
    """UTC with milliseconds: 2026-11-22T12:00:00.123Z."""
    seconds, rest = divmod(nanoseconds or 0, 1_000_000_000)
    try:
        when = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):  # a sender's clock may say anything
        return f"{seconds}s"
    return f"{when:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def _duration(nanoseconds: int | None) -> str:
    if nanoseconds is None or nanoseconds < 0:
        return ""
    if nanoseconds < 1_000_000_000:
        return (
            f"{nanoseconds / 1e6:.3g} ms"
            if nanoseconds < 100_000_000
            else (f"{nanoseconds / 1e6:.0f} ms")
        )
    return f"{nanoseconds / 1e9:.1f} s"


def _memory(row: Row) -> tuple[str, str, str, bool]:
    bad = row["outcome"] == "error" or row["type"] in ("system_error", "ui_error")
    text = " ".join((row["title"] or row["content"] or "").split())
    took = _duration(row["duration_ns"])
    ends = [row["outcome"] or "", "" if took and took in text else took]
    return row["type"], text, " ".join(one for one in ends if one), bad


def _span(row: Row) -> tuple[str, str, str, bool]:
    kinds = ("span", "internal", "server", "client", "producer", "consumer")
    bad = row["status_code"] == 2
    text = row["name"] or ""
    if bad and row["status_message"]:
        text += f": {' '.join(row['status_message'].split())}"
    status = row["http_response_status_code"]
    ends = [str(status) if status else "", "error" if bad else "", _duration(row["duration_ns"])]
    kind = row["kind"] if 0 <= (row["kind"] or 0) < len(kinds) else 0
    return kinds[kind or 0], text, " ".join(one for one in ends if one), bad


def _log(row: Row) -> tuple[str, str, str, bool]:
    number = row["severity_number"] or 0
    names = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    label = names[(number - 1) // 4] if 1 <= number <= 24 else (row["severity_text"] or "-")[:5]
    body = json.loads(row["body"]) if row["body"] else ""
    text = body if isinstance(body, str) else row["body"]
    text = " ".join(text.split())
    if row["event_name"]:
        text = f"{row['event_name']}: {text}" if text else row["event_name"]
    return label, text, row["exception_type"] or "", number >= 17
