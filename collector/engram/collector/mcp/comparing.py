"""What is different about the bad ones: every attribute of two sets of spans, weighed.

For each attribute=value the shares in both sets are compared by the log odds ratio with 0.5 added
to each cell (Haldane 1955, Anscombe 1956), whose standard error has a closed form; many are tested,
so those are told that pass Benjamini and Hochberg (1995) at 5 %. Spans of one trace are not
independent, so the z is an order and no proof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engram.collector.find import moment
from engram.collector.mcp.reader import Reader
from engram.collector.mcp.text import pairs, value
from engram.exporters.errors import BadRequest

if TYPE_CHECKING:
    import duckdb

SAMPLE: Final = 20_000
"""Spans of each set whose attributes are read; chosen by their hash, so always the same."""

_LEAST: Final = 5
"""A value in fewer spans of both sets together tells nothing."""

_FALSE: Final = 0.05

_COLUMNS: Final = {
    "service": "service_name", "service.name": "service_name", "name": "name",
    "trace_id": "trace_id", "user": "user_id", "user_id": "user_id", "user.id": "user_id",
    "session": "session_id", "session_id": "session_id", "session.id": "session_id",
    "method": "http_request_method", "http.request.method": "http_request_method",
    "route": "http_route", "http.route": "http_route", "server.address": "server_address",
    "host": "server_address", "error.type": "error_type", "db.system.name": "db_system_name",
    "model": "gen_ai_request_model", "gen_ai.request.model": "gen_ai_request_model",
    "http.response.status_code": "CAST(http_response_status_code AS VARCHAR)",
}  # fmt: skip
_STATUS: Final = {"unset": "0", "ok": "(0, 1)", "error": "2"}
_TIMES: Final = {"since": ">=", "until": "<"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute=value, in both sets."""

    key: str
    text: str
    before: int
    after: int
    z: float
    p: float


def condition(text: str) -> tuple[str, list[Any], set[str]]:
    """A set of spans (`service=shop, status=error, since=2h`) as SQL, its values, and its names.

    Raises:
        BadRequest: it cannot be read.
    """
    where, values, names = ["true"], list[Any](), set[str]()
    for name, sign, told in pairs(text):
        names.add(name)
        if name in _TIMES and sign == "=":
            where.append(f"start_time_unix_nano {_TIMES[name]} ?")
            values.append(moment(told))
        elif name in ("ms", "duration_ms") and sign != "=":
            where.append(f"end_time_unix_nano - start_time_unix_nano {sign} ?")
            try:
                values.append(int(float(told) * 1e6))
            except ValueError as error:
                raise BadRequest(f"{told!r} is no number of milliseconds") from error
        elif name == "status" and sign == "=":
            if told not in _STATUS:
                raise BadRequest(f"status is one of {', '.join(_STATUS)}, not {told!r}")
            where.append(f"coalesce(status_code, 0) IN {_STATUS[told]}"
                         if "(" in _STATUS[told] else f"status_code = {_STATUS[told]}")  # fmt: skip
        elif sign != "=":
            raise BadRequest(f"{name} can only be compared with =; ms takes >= and <=")
        elif name in _COLUMNS:
            where.append(f"{_COLUMNS[name]} = ?")
            values.append(told)
        else:
            where.append("json_extract_string(attributes, ?) = ?")
            values += ['$."' + name.replace('"', "") + '"', told]
    return " AND ".join(where), values, names


def compare(reader: Reader, baseline: str, target: str, group_by: str | None = None) -> list[str]:
    """The lines that say what differs, cleaned.

    Raises:
        BadRequest: a set cannot be read, or has too few spans.
    """
    sets = [condition(baseline), condition(target)]
    by_definition = sets[0][2] | sets[1][2]
    with reader.held() as connection:
        sizes, medians = [], []
        for at, (where, values, _) in enumerate(sets):
            connection.execute(_set(at, where), values)
        try:
            for at in range(2):
                n, p50, p95 = connection.execute(
                    "SELECT count(*), quantile_cont(ms, 0.5), quantile_cont(ms, 0.95) "
                    f"FROM temp.set_{at}"
                ).fetchall()[0]
                if n < _LEAST:
                    raise BadRequest(
                        f"the {('baseline', 'target')[at]} has {n} spans, and {_LEAST} are needed; "
                        "widen its time or drop a condition"
                    )
                sizes.append(n)
                medians.append((p50, p95))
            rows = _counted(connection, group_by)
        finally:
            for at in range(2):
                connection.execute(f"DROP TABLE IF EXISTS temp.set_{at}")
    found = differences(rows, sizes[0], sizes[1])
    kept = [one for one in found if not _defined(one.key, by_definition)]
    sampled = " (a sample)" if max(sizes) == SAMPLE else ""
    lines = [
        f"baseline: {sizes[0]:,} spans, p50 {medians[0][0]:.1f} ms, p95 {medians[0][1]:.1f} ms; "
        f"target: {sizes[1]:,} spans, p50 {medians[1][0]:.1f} ms, p95 {medians[1][1]:.1f} ms"
        f"{sampled}",
        f"{len(rows):,} values of attributes compared, {len(kept):,} differ (BH 5 %)",
    ]
    if not kept:
        return [*lines, "No attribute differs between the two beyond chance."]
    lines += ["", "attribute=value\tbaseline\ttarget\tz"]
    for one in kept[:25]:
        lines.append(
            f"{value(one.key, 80)}={value(one.text, 80)}\t{one.before / sizes[0]:.1%}\t"
            f"{one.after / sizes[1]:.1%}\t{one.z:+.1f}"
        )
    return lines


def differences(
    rows: Sequence[tuple[str, str, int, int]], before: int, after: int
) -> list[Difference]:
    """Those that differ beyond chance, the surest first. Pure."""
    tested = []
    for key, text, a, b in rows:
        a, b = min(a, before), min(b, after)
        cells = (b + 0.5, after - b + 0.5, a + 0.5, before - a + 0.5)
        z = (math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])) / math.sqrt(
            sum(1 / one for one in cells)
        )
        tested.append(Difference(key, text, a, b, z, math.erfc(abs(z) / math.sqrt(2))))
    tested.sort(key=lambda one: (one.p, -abs(one.z), one.key, one.text))
    passed = max(
        (at for at, one in enumerate(tested, 1) if one.p <= _FALSE * at / len(tested)), default=0
    )
    return tested[:passed]


def _set(at: int, where: str) -> str:
    return (
        f"CREATE OR REPLACE TEMP TABLE set_{at} AS SELECT attributes, resource, name, "
        "service_name, status_code, (end_time_unix_nano - start_time_unix_nano) / 1e6 AS ms "
        "FROM lake.spans WHERE scope_name IS DISTINCT FROM 'engram.learning' AND "
        f"{where} ORDER BY content_hash LIMIT {SAMPLE}"
    )


def _counted(
    connection: duckdb.DuckDBPyConnection, group_by: str | None
) -> list[tuple[str, str, int, int]]:
    """How often each attribute=value is in both sets; long values and rare ones are left out."""
    parts = " UNION ALL ".join(
        f"SELECT {at} AS which, key, left(value, 120) AS text FROM ("
        "SELECT e.key, CAST(e.value AS VARCHAR) AS value FROM "
        f"temp.set_{at} AS s, json_each(s.attributes) AS e "
        "UNION ALL SELECT 'resource.' || e.key, CAST(e.value AS VARCHAR) FROM "
        f"temp.set_{at} AS s, json_each(s.resource) AS e "
        f"UNION ALL SELECT 'name', name FROM temp.set_{at} "
        f"UNION ALL SELECT 'service', service_name FROM temp.set_{at} "
        f"UNION ALL SELECT 'status', CASE status_code WHEN 2 THEN 'error' ELSE 'ok' END "
        f"FROM temp.set_{at})"
        for at in range(2)
    )
    only = "" if group_by is None else "WHERE key = ?"
    return connection.execute(
        "SELECT key, trim(text, '\"'), count(*) FILTER (which = 0), count(*) FILTER (which = 1) "
        f"FROM ({parts}) {only} GROUP BY key, text HAVING count(*) >= {_LEAST} ORDER BY key, text",
        [] if group_by is None else [group_by],
    ).fetchall()


def _defined(key: str, names: set[str]) -> bool:
    """Whether a set was chosen by this attribute, so that it differs of course."""
    alike = {_COLUMNS.get(one, one) for one in names}
    plain = key.removeprefix("resource.")
    return plain in names or _COLUMNS.get(plain, plain) in alike


__all__ = ["SAMPLE", "Difference", "compare", "condition", "differences"]
