"""Solutions: what was done when an error came, and how often it helped; what is resolved.

`history` is what could have failed and did, `incidents` and `trials` count, `resolved` judges,
`read` is the lake, `words` the statements. See docs/jobs/solutions.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from engram.learning.jobs.insight import Insight
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.read import DAY, HISTORY, Glance, changes, histories
from engram.learning.jobs.solutions.resolved import perhaps_resolved, resolution
from engram.learning.jobs.solutions.trials import Change, perhaps_decided, tried
from engram.learning.jobs.solutions.words import JOB as NAME
from engram.learning.jobs.solutions.words import regressed, resolved, solution
from engram.learning.jobs.window import Window

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

_LATE: Final = DAY
"""What arrives this late is still looked at; what is said again is stored once."""


class Solutions:
    """The job."""

    name = NAME
    about = "fixes and how often they worked, errors that are resolved or have regressed"
    patient = True

    def run(self, read: Read, window: Window) -> Iterable[Insight]:
        """See the package."""
        window = Window(max(0, window.since - _LATE), window.until)
        since = max(0, window.since - HISTORY)
        done = changes(read, since, window.until)
        known = _resolved_before(read, window.until)

        def worth(service: str, pattern: str, runs: Glance) -> bool:
            return (
                (service, pattern) in known
                or perhaps_resolved(runs)
                or perhaps_decided(runs, done_to(service), window.since)
            )

        def done_to(service: str) -> list[Change]:
            return [*done.get(service, []), *(done.get("", []) if service else [])]

        for history in histories(read, since, window.until, worth=worth):
            yield from statements(history, done_to(history.service), window, known)


def statements(
    history: History,
    done: list[Change],
    window: Window,
    known: dict[tuple[str, str], list[tuple[str, int, int, str]]],
) -> Iterator[Insight]:
    """What became true of one error within a window.

    `known`: by service and pattern, earlier resolutions: version, cut, moment, memory id.
    """
    # Of what is open the moment is 0.
    decided = range(max(1, window.since), window.until)
    for tally in tried(history, done, window.until).tallies if done else ():
        if tally.decided in decided and (tally.worked or tally.tried >= 3):
            # As it was known then, so that the same is said whenever it is said.
            then = tried(
                history.until(tally.decided),
                [one for one in done if one.time_unix_nano <= tally.decided],
                tally.decided,
            )
            for one in then.tallies:
                if one.what == tally.what:
                    yield solution(history.until(tally.decided), then, one)
    now = resolution(history)
    if now is not None and now.moment in decided:
        known_then = history.until(now.moment)
        yield resolved(known_then, resolution(known_then) or now)
    for version, cut, moment, memory in known.get((history.service, history.pattern), []):
        place = _failed_again(history, version, moment)
        if place is not None and history.start(place) in decided:
            yield regressed(history, version, cut, place, memory)


def _failed_again(history: History, version: str, moment: int) -> int | None:
    import numpy as np

    after = history.failed & (history.starts > moment)
    if version:
        if version not in history.versions:
            return None
        after &= history.on >= history.versions.index(version)
    places = np.flatnonzero(after)
    return int(places[0]) if len(places) else None


def _resolved_before(
    read: Read, until: int
) -> dict[tuple[str, str], list[tuple[str, int, int, str]]]:
    rows = read(
        """
        SELECT id, coalesce(service_name, '') AS service, time_unix_nano AS moment,
            json_extract_string(attributes, '$.pattern') AS pattern,
            coalesce(json_extract_string(attributes, '$.since_version'), '') AS version,
            coalesce(try_cast(json_extract_string(attributes, '$.cut') AS BIGINT), 0) AS cut
        FROM lake.memories
        WHERE type = 'ai_insight' AND list_contains(tags, 'state:resolved')
            AND json_extract_string(attributes, '$.job') = ? AND time_unix_nano < ?
            AND trust = 'engram'
        ORDER BY time_unix_nano, id
        """,
        [NAME, until],
    )
    known: dict[tuple[str, str], list[tuple[str, int, int, str]]] = {}
    for row in rows.iter_rows(named=True):
        said = (row["version"], int(row["cut"]), int(row["moment"]), str(row["id"]))
        known.setdefault((row["service"], row["pattern"]), []).append(said)
    return known


JOB: Final = Solutions()

__all__ = ["JOB", "Solutions", "statements"]
