"""Enrichment: what a memory's own record cannot know, found out from its trace and sent back in.

An error is reported by a span that knows no user; the user is on the root of the trace, which
arrives later, or earlier, or never. For each memory that is kept by itself (`index_as = 'memory'`:
errors, what people and models said, marks; not the volume types) the enricher looks at the spans
of its trace and, where they know more, sends an event that a rule merges into the memory.

What to look at is a query over the lake, as for the index: the traces of the commits behind a
watermark. A *near* pass looks every few seconds at what came within the last minute; a *deep* pass
looks every few minutes at the hour around each memory, for traces that are longer than that.
A trace that gets a span is looked at again however late the span is: windows are in event time.
Watermarks are written after what was sent is durable: a crash between sends it again, which
changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from engram.exporters import files, own
from engram.exporters.ask import ask
from engram.exporters.errors import EngramError, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.own import INHERITED as FIELDS
from engram.exporters.signals import Signal
from engram.learning.inherit import Found, Place, Trace, inherit, news

if TYPE_CHECKING:
    import duckdb

_T = TypeVar("_T")
_LOG = logging.getLogger("engram.learn")

NEAR_S: Final = 10.0
"""Seconds between near passes while the lake grows; `stat` calls when it does not."""

DEEP_S: Final = 300.0

_NEAR_BACK_S: Final = 60.0
"""A near pass looks at spans that were recorded this long before its commits."""

_DEEP_BACK_NS: Final = 3600 * 10**9
"""A deep pass looks at spans that began this long before a memory."""

_SLACK_NS: Final = 600 * 10**9
"""Clocks differ, and children outlive their parents."""

_REACH_NS: Final = {False: 3600 * 10**9, True: 24 * 3600 * 10**9}
"""How far before the end of a late span its memories are looked for, near and deep."""

_SLICE: Final = 50_000
"""Spans and logs looked at in one slice, in whole commits."""

_TRACES: Final = 5_000
"""Traces of memories resolved at once."""

_DISPUTED_SPANS: Final = 20_000
"""A trace in which several users are named and that is larger is not walked span by span."""

_EVENTS: Final = 1_000
"""Events of one request: about 200 kB."""

_MOST_BACKOFF_S: Final = 60.0
_RANGES: Final = 16
_BUCKET_NS: Final = 600 * 10**9

# What spans and logs say in columns, and, for the spellings that only the rules read, what memories
# say that their own records said. Attributes are not read: an hour of them is gigabytes.
_SPAN_VALUES: Final = (
    "nullif(user_id, '') AS user_id, nullif(session_id, '') AS session_id, "
    "nullif(gen_ai_conversation_id, '') AS conversation_id"
)
_OWN_VALUES: Final = ", ".join(
    f"CASE WHEN ranks[{own.RANKS_AT + at}] > '0' THEN nullif({name}, '') END AS {name}"
    for at, name in enumerate(FIELDS)
)
_RANKS: Final = f"ranks[{own.RANKS_AT}:{own.RANKS_AT + len(FIELDS) - 1}]"


@dataclass(frozen=True, slots=True)
class Patch:
    """What is sent: memories of a trace, and what they inherit."""

    memory_ids: tuple[str, ...]
    time_unix_nano: int
    """When the first of them happened."""

    found: Found


@dataclass(frozen=True, slots=True)
class _Slice:
    """Whole commits of one collector."""

    collector: str
    after: int
    upto: int
    recorded_from: int

    @property
    def where(self) -> str:
        collector = self.collector.replace("'", "''")
        return f"collector = '{collector}' AND sequence > {self.after} AND sequence <= {self.upto}"


class Enricher:
    """Keeps memories enriched. Constructing opens nothing. Not for several threads."""

    def __init__(self, home: Home, *, deep_s: float = DEEP_S) -> None:
        self._home = home
        self._deep_s = deep_s
        self._next_deep = time.monotonic() + min(deep_s, NEAR_S)
        self._lake: duckdb.DuckDBPyConnection | None = None
        self._seen: object = None
        self._path = home.root / "learn" / "enrich.json"
        self._marks: dict[str, dict[str, int]] = {"near": {}, "deep": {}}
        self._load()

    def run(self, stop: threading.Event) -> None:
        """Enrich until told to stop. Errors are logged once per cause and tried again."""
        wait, cause = NEAR_S, ""
        while not stop.wait(wait):
            try:
                self.step(stop)
                wait, cause = NEAR_S, ""
            except EngramError as error:
                if str(error) != cause:
                    _LOG.warning("enrichment waits: %s", error)
                wait, cause = min(wait * 2, _MOST_BACKOFF_S), str(error)
        self.close()

    def step(self, stop: threading.Event | None = None) -> int:
        """Look at everything that is new, slice by slice; how many memories learned something.

        Raises:
            StoreError: the lake cannot be read now.
            EngramError: `collect` does not take what was found; call again later.
        """
        deep = time.monotonic() >= self._next_deep
        signature = self._signature()
        if signature is None or (signature == self._seen and not deep):
            return 0
        sent = 0
        # Deep first, as far as near has been: what near sends now is not in the lake yet.
        for kind in ("deep", "near") if deep else ("near",):
            for part in self._slices(kind):
                sent += self._enrich(part, deep=kind == "deep")
                self._marks[kind][part.collector] = part.upto
                self._save()
                if stop is not None and stop.is_set():
                    return sent
        if deep:
            self._next_deep = time.monotonic() + self._deep_s
        self._seen = signature
        return sent

    def close(self) -> None:
        """Let go of the lake. Safe twice."""
        lake, self._lake = self._lake, None
        if lake is not None:
            lake.close()

    # -- what was looked at ------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_text())
            self._marks = {
                kind: {str(key): int(mark) for key, mark in kept[kind].items()}
                for kind in self._marks
            }
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            _LOG.warning("%s cannot be read, all is looked at again: %s", self._path, error)

    def _save(self) -> None:
        try:
            files.make_directory(self._path.parent, 0o700)
            fresh = self._path.with_suffix(".new")
            files.write_synced(fresh, json.dumps(self._marks).encode())
            fresh.replace(self._path)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    def _signature(self) -> object:
        """Changes with every commit; None while there is no lake. Opens nothing."""
        found: list[tuple[int, int, int]] = []
        for path in (self._home.catalog, self._home.catalog.with_name("catalog.sqlite-wal")):
            try:
                stat = os.stat(path)
            except FileNotFoundError:
                continue
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found) or None

    def _slices(self, kind: str) -> Iterator[_Slice]:
        latest = self._ask("SELECT collector, max(sequence) FROM lake.commits GROUP BY collector")
        for collector, last in sorted(latest):
            if kind == "deep":
                last = min(last, self._marks["near"].get(collector, 0))
            mark = self._marks[kind].get(collector, 0)
            if last < mark:  # another lake has taken the place of the one that was looked at
                mark = 0
            while mark < last:
                rows = self._ask(
                    "SELECT sequence, recorded_at FROM (SELECT sequence, recorded_at, "
                    "sum(spans + logs) OVER (ORDER BY sequence) - spans - logs AS before "
                    f"FROM lake.commits WHERE collector = ? AND sequence > {mark} "
                    f"AND sequence <= {last}) WHERE before < {_SLICE} ORDER BY sequence",
                    [collector],
                )
                upto = int(rows[-1][0]) if rows else last
                yield _Slice(collector, mark, upto, int(rows[0][1]) if rows else 0)
                mark = upto

    # -- finding out -------------------------------------------------------------------------------

    def _enrich(self, part: _Slice, *, deep: bool) -> int:
        sent = 0
        for needy in _chunks(self._needy(part, deep=deep), _TRACES):
            sent += self._send(self._patches(part, needy, deep=deep))
        return sent

    def _needy(self, part: _Slice, *, deep: bool) -> list[tuple[Any, ...]]:
        """The memories of the slice, and of the traces that it adds to, that could learn something.

        (id, time, trace, span, user, session, conversation, their ranks)
        """
        columns = (
            "SELECT id, time_unix_nano, trace_id, span_id, user_id, session_id, "
            f"conversation_id, {_RANKS} AS inferred FROM lake.memories "
            "WHERE index_as = 'memory' AND trace_id IS NOT NULL AND time_unix_nano IS NOT NULL "
            "AND (user_id IS NULL OR session_id IS NULL OR conversation_id IS NULL "
            "OR least(inferred[1], inferred[2], inferred[3]) < '0') AND "
        )
        found = {row[0]: row for row in self._ask(columns + part.where)}
        self._ask(
            "CREATE OR REPLACE TEMP TABLE fresh AS SELECT trace_id, "
            f"greatest(min(first), max(last) - {_REACH_NS[deep]}) AS first, max(last) AS last "
            "FROM (SELECT trace_id, start_time_unix_nano AS first, "
            "greatest(end_time_unix_nano, start_time_unix_nano) AS last "
            f"FROM lake.spans WHERE {part.where} UNION ALL "
            "SELECT trace_id, greatest(time_unix_nano, observed_time_unix_nano) AS first, first "
            f"FROM lake.logs WHERE {part.where} AND trace_id IS NOT NULL "
            "AND (user_id IS NOT NULL OR session_id IS NOT NULL "
            "OR gen_ai_conversation_id IS NOT NULL)) GROUP BY trace_id"
        )
        buckets = self._ask(
            f"SELECT DISTINCT first // {_BUCKET_NS}, last // {_BUCKET_NS} FROM fresh"
        )
        for low, high in _ranges(buckets):
            more = self._ask(
                f"{columns} time_unix_nano BETWEEN {low * _BUCKET_NS - _SLACK_NS} "
                f"AND {(high + 1) * _BUCKET_NS + _SLACK_NS} "
                "AND trace_id IN (SELECT trace_id FROM fresh)"
            )
            found |= {row[0]: row for row in more}
        return sorted(found.values(), key=lambda row: (row[2], row[1], row[0]))

    def _patches(
        self, part: _Slice, needy: list[tuple[Any, ...]], *, deep: bool
    ) -> Iterator[Patch]:
        ids = [row[2] for row in needy]
        times = [row[1] for row in needy]
        if deep:
            low, high = min(times) - _DEEP_BACK_NS, max(times) + _SLACK_NS
            spans = f"start_time_unix_nano BETWEEN {low} AND {high}"
            logs = f"time_unix_nano BETWEEN {low} AND {high}"
        else:
            spans = logs = f"recorded_at >= {part.recorded_from - int(_NEAR_BACK_S * 1e9)}"
        traces = self._traces(sorted(set(ids)), spans, logs)
        disputed = sorted(
            id_ for id_, (trace, size) in traces.items()
            if trace.disputed and size <= _DISPUTED_SPANS
        )  # fmt: skip
        places = self._places(disputed, spans, logs) if disputed else {}
        together: dict[tuple[str, Found], tuple[int, list[str]]] = {}
        for id_, when, trace_id, span_id, *known, ranks in needy:
            if trace_id not in traces:
                continue
            trace = traces[trace_id][0]
            found = inherit(trace, span_id, places.get(trace_id, ()))
            better = news(found, (known[0], known[1], known[2]), ranks)
            if better is not None:
                together.setdefault((trace_id, better), (when, []))[1].append(id_)
        for (_, better), (when, named) in together.items():
            yield Patch(tuple(named), when, better)

    def _traces(self, ids: list[str], spans: str, logs: str) -> dict[str, tuple[Trace, int]]:
        """What each trace says, and its number of records."""
        sides = ", ".join(
            f"{how}({name}){only}"
            for how, only in (("min", ""), ("max", ""), ("max", " FILTER (parent IS NULL)"))
            for name in FIELDS
        )
        rows = self._ask(
            f"SELECT trace_id, count(*), {sides} FROM ({_records(spans, logs)}) GROUP BY trace_id",
            wanted=ids,
        )
        return {
            row[0]: (Trace(tuple(row[2:5]), tuple(row[5:8]), tuple(row[8:11])), row[1])
            for row in rows
        }

    def _places(self, ids: list[str], spans: str, logs: str) -> dict[str, list[Place]]:
        found: dict[str, list[Place]] = {}
        for trace_id, span_id, parent, *values in self._ask(_records(spans, logs), wanted=ids):
            place = Place(span_id or "", parent, (values[0], values[1], values[2]))
            found.setdefault(trace_id, []).append(place)
        return found

    # -- the lake, and the way back ----------------------------------------------------------------

    def _ask(
        self, sql: str, values: list[Any] | None = None, *, wanted: list[str] | None = None
    ) -> list[tuple[Any, ...]]:
        """Rows of a query. `wanted` is a table of that name with one column, for many values.

        As a parameter, a list of 1,300 costs 0.18 s.
        """
        import duckdb
        import pyarrow as pa

        from engram.exporters.lake.attach import attach_read_only

        try:
            if self._lake is None:
                self._lake = attach_read_only(self._home, threads=1, memory_limit="256MB")
            if wanted is not None:
                self._lake.register("wanted", pa.table({"trace_id": wanted}))
            return self._lake.execute(sql, values or []).fetchall()
        except (NotFound, duckdb.CatalogException):
            self.close()
            return []  # no lake yet, or one without its tables
        except duckdb.Error as error:
            self.close()
            raise StoreError(f"cannot read the lake in {self._home.lake}: {error}") from error

    def _send(self, patches: Iterable[Patch]) -> int:
        sent = 0
        for some in _chunks(list(patches), _EVENTS):
            ask(self._home, "append", signal=str(Signal.LOGS), body=request(some))
            sent += sum(len(patch.memory_ids) for patch in some)
        return sent


def request(patches: Iterable[Patch]) -> bytes:
    """Patches as one OTLP request. The same patches make the same bytes, so the same records."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    made = ExportLogsServiceRequest()
    resource = made.resource_logs.add()
    service = resource.resource.attributes.add(key="service.name")
    service.value.string_value = own.SERVICE
    scope = resource.scope_logs.add()
    scope.scope.name = own.SCOPE
    for patch in patches:
        record = scope.log_records.add(
            event_name=own.ENRICHMENT, time_unix_nano=max(0, patch.time_unix_nano)
        )
        certainty = "".join(sure or "0" for sure in patch.found.certainty)
        values = zip(("user.id", "session.id", "gen_ai.conversation.id"), patch.found.values,
                     strict=True)  # fmt: skip
        for key, value in (
            (own.MEMORY_IDS, " ".join(patch.memory_ids)), (own.CERTAINTY, certainty), *values,
        ):  # fmt: skip
            if value is not None:
                record.attributes.add(key=key).value.string_value = value
    return made.SerializeToString()


def _records(spans: str, logs: str) -> str:
    """Records of the traces in `wanted`: trace, span, parent, user, session, conversation.

    What is no span has no parent and is no root: its parent is the empty string.
    """
    mine = "trace_id IN (FROM wanted)"
    return (
        f"SELECT trace_id, span_id, parent_span_id AS parent, {_SPAN_VALUES} FROM lake.spans "
        f"WHERE {spans} AND {mine} UNION ALL "
        f"SELECT trace_id, span_id, '' AS parent, {_SPAN_VALUES} FROM lake.logs "
        f"WHERE {logs} AND {mine} UNION ALL "
        f"SELECT trace_id, span_id, '' AS parent, {_OWN_VALUES} FROM lake.memories "
        f"WHERE {logs} AND {mine}"
    )


def _ranges(buckets: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping and neighbouring ranges joined; all in one when they are too many."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(buckets):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], high)
        else:
            joined.append((low, high))
    if len(joined) > _RANGES:
        joined = [(joined[0][0], max(high for _, high in joined))]
    return joined


def _chunks(of: list[_T], size: int) -> Iterator[list[_T]]:
    for at in range(0, len(of), size):
        yield of[at : at + size]
