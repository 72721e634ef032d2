"""Pages that break, buttons that are clicked again and again, forms that are given up.

A session on a page, or at a button, is one observation, however often it came.

* **page**: sessions that had an error on it (the last page that they viewed before it).
* **rage**: sessions that clicked one element three times within two seconds. Where an element is
  made for that (plus, minus, next) this says so too: look at it once.
* **given up**: of sessions that viewed a page with a form, the share that submitted it, in the last
  week against the one before: ten points less, by Fisher's exact test, believed by Benjamini and
  Hochberg among all forms. The browser does not tell who began to fill it in.

The first two by `failing`: four sessions and more than one in ten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from engram.learning.intervals import difference, discoveries, fisher
from engram.learning.jobs.failing import WEEK, failing
from engram.learning.jobs.insight import Insight
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

RAGE: Final = 3
"""Clicks on one element ..."""
RAGE_NS: Final = 2 * 10**9
"""... within so long. Common tools take 3 within 1 to 2 seconds."""

_SESSIONS: Final = 50
"""That saw a form in each week, to compare."""
_LESS: Final = 0.1
_SHARE: Final = 0.01

BROKEN: Final = """
WITH views AS (
    SELECT coalesce(service_name, '') AS service, session_id, subject AS page,
        time_unix_nano AS moment, id
    FROM lake.memories
    WHERE type = 'page_view' AND nullif(session_id, '') IS NOT NULL AND subject IS NOT NULL
        AND time_unix_nano >= $1 AND time_unix_nano < $2
),
errors AS (
    SELECT v.service, v.page, e.session_id, e.moment, e.id, e.why, e.recorded_at
    FROM (
        SELECT coalesce(service_name, '') AS service, session_id, time_unix_nano AS moment, id,
            attributes->>'$.type' AS why, recorded_at
        FROM lake.memories
        WHERE type = 'ui_error' AND nullif(session_id, '') IS NOT NULL
            AND time_unix_nano >= $1 AND time_unix_nano < $2
    ) AS e
    ASOF JOIN views AS v ON e.service = v.service AND e.session_id = v.session_id
        AND e.moment >= v.moment
)
SELECT service, page AS name, coalesce(min(e.moment), max(v.moment)) AS begun,
    coalesce(min(e.moment), max(v.moment)) AS moment,
    count(e.id) > 0 AS failed, coalesce(arg_min(e.id, (e.moment, e.id)), max(v.id)) AS id,
    NULL::VARCHAR AS trace_id, max(e.recorded_at) AS recorded_at,
    arg_min(e.why, (e.moment, e.id)) AS why
FROM views AS v LEFT JOIN errors AS e USING (service, session_id, page)
GROUP BY service, page, session_id
"""

RAGED: Final = f"""
WITH clicks AS (
    SELECT coalesce(service_name, '') AS service, session_id, time_unix_nano AS moment, id,
        recorded_at,
        coalesce(attributes->>'$.element', '?') || ' on ' || coalesce(attributes->>'$.page', '?')
            AS name
    FROM lake.memories
    WHERE type = 'user_action' AND nullif(session_id, '') IS NOT NULL
        AND list_contains(tags, 'action:click')
        AND time_unix_nano >= $1 AND time_unix_nano < $2
),
judged AS (
    SELECT *, coalesce(moment - lag(moment, {RAGE - 1}) OVER (
        PARTITION BY service, session_id, name ORDER BY moment, id
    ) <= {RAGE_NS}, false) AS raged
    FROM clicks
)
SELECT service, name, coalesce(min(moment) FILTER (raged), max(moment)) AS begun,
    coalesce(min(moment) FILTER (raged), max(moment)) AS moment,
    bool_or(raged) AS failed, coalesce(arg_min(id, (moment, id)) FILTER (raged), max(id)) AS id,
    NULL::VARCHAR AS trace_id, max(recorded_at) AS recorded_at, NULL::VARCHAR AS why
FROM judged
GROUP BY service, name, session_id
"""

FORMS: Final = """
WITH views AS (
    SELECT coalesce(service_name, '') AS service, session_id, subject AS page,
        time_unix_nano >= $3 AS now, max(id) AS id
    FROM lake.memories
    WHERE type = 'page_view' AND nullif(session_id, '') IS NOT NULL AND subject IS NOT NULL
        AND time_unix_nano >= $1 AND time_unix_nano < $2
    GROUP BY ALL
),
submits AS (
    SELECT DISTINCT coalesce(service_name, '') AS service, session_id, subject AS page,
        time_unix_nano >= $3 AS now
    FROM lake.memories
    WHERE type = 'user_action' AND list_contains(tags, 'action:submit')
        AND time_unix_nano >= $1 AND time_unix_nano < $2
)
SELECT v.service, v.page, v.now, count(*) AS n, count(s.page) AS k,
    max(v.id) FILTER (s.page IS NULL) AS id
FROM views AS v
LEFT JOIN submits AS s USING (service, session_id, page, now)
WHERE (v.service, v.page) IN (SELECT (service, page) FROM submits)
GROUP BY ALL
"""
"""Sessions that viewed a page with a form, and those of them that submitted it: from $1 to $2,
before and after $3."""


def points_of_failure(read: Read, window: Window, job: str) -> Iterator[Insight]:
    """Pages that break, and elements that are clicked in rage."""
    yield from failing(
        read, window, BROKEN, job=job, kind="page", title="Page {name} breaks",
        of="sessions had an error on it",
    )  # fmt: skip
    yield from failing(
        read, window, RAGED, job=job, kind="rage",
        title=f"People click {RAGE} times and more in a row on {{name}}",
        of="sessions that clicked it", importance=0.6,
    )  # fmt: skip


def given_up(read: Read, end: int, job: str) -> Iterator[Insight]:
    """Forms that fewer people submit than the week before."""
    rows = read(FORMS, [end - 2 * WEEK, end, end - WEEK])
    forms: dict[tuple[str, str], dict[bool, tuple[int, int, str]]] = {}
    for row in rows.sort("service", "page").iter_rows(named=True):
        both = forms.setdefault((row["service"], row["page"]), {})
        both[row["now"]] = (row["k"], row["n"], row["id"] or "")
    known = [
        (key, both[True], both[False])
        for key, both in forms.items()
        if len(both) == 2 and min(both[True][1], both[False][1]) >= _SESSIONS
    ]
    believed = discoveries(
        [fisher(now[0], now[1], then[0], then[1]) for _, now, then in known], _SHARE
    )
    for ((service, page), (k, n, id_), (k0, n0, _)), so in zip(known, believed, strict=True):
        if not so or k0 / n0 - k / n < _LESS:
            continue
        low, high = difference(k, n, k0, n0)
        yield Insight(
            job=job,
            key=("given up", service, page, str(end)),
            title=f"Fewer submit the form on {page}: {k / n:.0%} of {n} sessions, "
            f"the week before {k0 / n0:.0%}",
            content=(
                f"{100 * (k / n - k0 / n0):.0f} points, between {100 * low:.0f} and "
                f"{100 * high:.0f} (95 % interval); {k} of {n} sessions, before {k0} of {n0}"
            ),
            time_unix_nano=end - 1,  # of the day that it is about
            service=service or None,
            importance=0.7,
            tags=("state:worse",),
            evidence=(id_,) if id_ else (),
            facts={
                "state": "worse", "what": "|".join(("form", service, page)), "page": page,
                "n": n, "k": k, "n_before": n0, "k_before": k0, "low": low, "high": high,
            },
        )  # fmt: skip


__all__ = ["BROKEN", "FORMS", "RAGED", "given_up", "points_of_failure"]
