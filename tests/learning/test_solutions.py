"""Solutions: incidents by exposure, trials, tiers, what is resolved; and all of it from a lake."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.learning.home import Collecting
from tests.telemetry import STACK, T0, attributes, span_id, trace_id

from engram.exporters.home import Home
from engram.learning.jobs import Insight, Runner, Window
from engram.learning.jobs.solutions import JOB, statements
from engram.learning.jobs.solutions.history import History
from engram.learning.jobs.solutions.incidents import clean_runs, incidents
from engram.learning.jobs.solutions.resolved import resolution
from engram.learning.jobs.solutions.trials import Change, Tally, Tried, tried

SECOND = 10**9
MINUTE = 60 * SECOND
ALWAYS = Window(0, T0 + 10_000 * MINUTE)


def history(failed: Iterable[bool], versions: Sequence[str] | None = None) -> History:
    """Runs a minute apart, of which some failed."""
    fails = np.array(list(failed), bool)
    on = [""] * len(fails) if versions is None else list(versions)
    names = tuple(dict.fromkeys(on))
    starts = T0 + np.arange(len(fails), dtype=np.int64) * MINUTE
    times = tuple(starts[fails].tolist())
    return History(
        "shop", "E in f", "E in f: no", "E", ("POST /pay",), starts, fails,
        np.array([names.index(one) for one in on], np.int32), names,
        tuple(f"m{at}" for at in range(len(times))), times,
    )  # fmt: skip


def at(place: float) -> int:
    """The time a moment after a run began."""
    return T0 + int(place * MINUTE) + SECOND


def fix(place: float, name: str = "reconnect", **more: Any) -> Change:
    """A remedy that ran then."""
    return Change(more.pop("kind", "remedy"), name, at(place), f"fix{place}", **more)


def runs(*parts: tuple[int, bool]) -> list[bool]:
    """So many runs that failed or did not, and so on."""
    return [fails for count, fails in parts for _ in range(count)]


# -- incidents -------------------------------------------------------------------------------------


def test_an_incident_ends_by_runs_not_by_time() -> None:
    """A surely failing operation is good again after a few runs; a rarely failing one is not."""
    assert clean_runs(50, 50) == 3  # never on one good run alone
    assert 10 <= clean_runs(1, 1) <= 20  # one failure says little about its rate
    assert clean_runs(5, 500) > 500
    found = incidents(runs((8, True), (20, False), (8, True), (1, False), (8, True), (2, False)))
    assert [(len(one.failing), one.over) for one in found] == [(8, True), (16, False)]
    assert found[0].end == found[0].last + found[0].needed


def test_no_failure_is_no_incident() -> None:
    """And a history that ends with one is open."""
    assert incidents([False] * 10) == []
    [one] = incidents([False, True])
    assert not one.over


# -- trials ----------------------------------------------------------------------------------------

TROUBLE = runs((5, True), (30, False))


def tally_of(changes: list[Change], failed: list[bool], **more: Any) -> Tally:
    """The one tally."""
    [one] = tried(history(failed, **more), changes, at(len(failed))).tallies
    return one


def test_a_fix_after_which_nothing_fails_worked() -> None:
    """And one after which it fails again did not, nor one that says so itself."""
    assert tally_of([fix(4)], TROUBLE).worked == 1
    assert (tally_of([fix(2)], TROUBLE).worked, tally_of([fix(2)], TROUBLE).tried) == (0, 1)
    assert tally_of([fix(4, gave_up=True)], TROUBLE).of("failed") == 1
    # A run that began before the fix and fails after it proves nothing against it.
    assert tally_of([fix(3.9)], TROUBLE).of("failed") == 1
    assert tally_of([fix(4.001)], TROUBLE).worked == 1


def test_too_early_to_say_is_open_with_what_is_missing() -> None:
    """Not a success; and how many clean runs it needs."""
    one = tally_of([fix(4)], runs((5, True), (2, False)))
    assert (one.worked, one.tried, one.of("open")) == (0, 0, 1)
    needed = one.trials[0].needed
    assert needed >= 1
    more = tally_of([fix(4)], runs((5, True), (2 + needed, False)))
    assert more.worked == 1
    fewer = tally_of([fix(4)], runs((5, True), (1 + needed, False)))
    assert fewer.of("open") == 1


def test_two_changes_at_once_count_for_neither() -> None:
    """But one that failed before is told apart."""
    found = tried(history(TROUBLE), [fix(4), fix(5, "restart")], at(40))
    assert [one.of("confounded") for one in found.tallies] == [1, 1]
    assert all(one.tried == 0 for one in found.tallies)
    found = tried(history(TROUBLE), [fix(1), fix(5, "restart")], at(40))
    assert {one.what[1]: (one.worked, one.tried) for one in found.tallies} == {
        "restart": (1, 1), "reconnect": (0, 1),
    }  # fmt: skip


def test_an_incident_counts_once() -> None:
    """However often the fix ran in it; and a fix of another error is none of this one."""
    assert tally_of([fix(4), fix(4.1), fix(4.2)], TROUBLE).tried == 1
    assert tried(history(TROUBLE), [fix(4, error_type="Other")], at(40)).tallies == ()
    assert tally_of([fix(4, error_type="shop.E")], TROUBLE).worked == 1


def test_a_deploy_is_judged_by_its_own_runs() -> None:
    """The old version still runs and fails: that is nothing against the new one."""
    failed = runs((6, True)) + [n % 2 == 0 and n < 40 for n in range(80)]
    versions = ["1"] * 6 + ["1" if n % 2 == 0 else "2" for n in range(80)]
    one = tally_of([fix(6.5, "2", kind="deploy", version="2")], failed, versions=versions)
    assert (one.worked, one.tried) == (1, 1)
    bad = runs((6, True)) + [n < 40 for n in range(80)]
    one = tally_of([fix(6.5, "2", kind="deploy", version="2")], bad, versions=versions)
    assert (one.worked, one.tried) == (0, 1)


def many(count: int, works: int) -> Tried:
    """So many incidents, each with a fix, of which some worked; two versions."""
    failed: list[bool] = []
    fixes = []
    for n in range(count):
        fixes.append(fix(len(failed) + (4 if n < works else 1)))
        failed += TROUBLE
    half = len(failed) // 2
    versions = ["1"] * half + ["2"] * (len(failed) - half)
    return tried(history(failed, versions), fixes, at(len(failed)))


def test_tiers_need_incidents_versions_and_to_beat_what_passes_by_itself() -> None:
    """By lower bounds: 5 of 5 is supported, 12 of 12 on two versions proven, 1 of 1 a candidate."""
    for count, works, tier in (
        (1, 1, "candidate"), (5, 5, "supported"), (9, 9, "supported"), (12, 12, "proven"),
        (12, 6, "candidate"), (4, 0, "refuted"), (30, 30, "auto-eligible"),
    ):  # fmt: skip
        found = many(count, works)
        [one] = found.tallies
        assert (one.worked, one.tried) == (works, count)
        assert found.tier(one) == tier, (count, works, one.low)
    found = many(12, 12)
    assert found.tallies[0].tier(0.1, 0.9) == "supported"  # it may pass by itself as often
    assert found.tallies[0].tier(0.9, 0.95) == "candidate"  # it does
    same = [trial for trial in found.tallies[0].trials if trial.version == "1"] * 2
    assert Tally(("remedy", "x"), tuple(same), found.tallies[0].now).tier(0.1, 0.2) == "supported"


def test_what_does_nothing_is_not_believed() -> None:
    """A rare error is soon gone after anything that is done: as soon as after nothing."""
    rare = history([n % 50 == 0 for n in range(2000)])
    placebo = [fix(50 * n) for n in range(0, 40, 2)]
    found = tried(rare, placebo, at(2000))
    [one] = found.tallies
    assert (one.worked, one.tried) == (20, 20)
    assert found.untreated == found.alone == 20
    assert found.tier(one) == "candidate"
    always = tried(rare, [fix(50 * n) for n in range(40)], at(2000))
    assert always.tier(always.tallies[0]) in ("candidate", "supported")  # nobody knows


def test_old_trials_weigh_less() -> None:
    """Twelve successes of a year ago are no proof today."""
    [one] = many(12, 12).tallies
    later = Tally(one.what, one.trials, one.now + 365 * 24 * 60 * MINUTE)
    assert later.low < one.low
    assert later.tier(0.1, 0.2) == "candidate"


def test_what_passes_by_itself_is_counted() -> None:
    """Single failures that nothing was done about."""
    lonely = history(runs((1, True), (30, False)) * 8)
    found = tried(lonely, [], at(400))
    assert (found.alone, found.untreated) == (8, 8)
    assert found.by_itself > 0.9
    assert tried(lonely, [fix(31 * n) for n in range(8)], at(400)).by_itself_at_most == 1.0
    assert many(5, 5).untreated == 5  # the first failure of each, and the second came before a fix


# -- resolved --------------------------------------------------------------------------------------


def test_resolved_by_version_in_event_time() -> None:
    """Clean runs of the new version; the old one may go on failing."""
    failed = runs((50, True), (50, False)) + [n % 2 == 0 for n in range(4000)]
    versions = ["1"] * 100 + ["1" if n % 2 == 0 else "2" for n in range(4000)]
    found = resolution(history(failed, versions))
    assert found is not None
    assert (found.judgement.verdict, found.since) == ("resolved", "2")
    assert T0 + 100 * MINUTE < found.moment < T0 + 4100 * MINUTE
    earlier = resolution(history(failed[:120], versions[:120]))
    assert earlier is not None
    assert earlier.judgement.verdict == "clean"
    assert earlier.judgement.needed
    assert earlier.moment == 0


def test_the_moment_does_not_move_when_more_runs_follow() -> None:
    """So the same is said once."""
    base = runs((20, True), (20, False)) * 3
    long, longer = (resolution(history(base + [False] * n)) for n in (3000, 4000))
    assert long is not None
    assert longer is not None
    assert long.judgement.verdict == longer.judgement.verdict == "resolved"
    assert long.moment == longer.moment


def test_an_error_that_is_still_there_is_hardly_ever_resolved() -> None:
    """Rare failures, looked at every day: at most one life in twenty is wrong."""
    draw = random.Random(7)
    wrong = 0
    lives = 100
    for _ in range(lives):
        rate = draw.choice([0.002, 0.01, 0.05])
        failed = [draw.random() < rate for _ in range(6000)]
        for day in range(1000, 6001, 500):
            found = resolution(history(failed[:day]))
            if found is not None and found.judgement.verdict == "resolved":
                wrong += 1
                break
    assert wrong <= lives * 0.05


# -- statements ------------------------------------------------------------------------------------


def said(one: History, done: list[Change], window: Window = ALWAYS) -> list[Insight]:
    """What is said of an error without earlier resolutions."""
    return list(statements(one, done, window, {}))


def test_a_solution_says_how_often() -> None:
    """Worked of tried, tier, what passes by itself, evidence; at the moment it was decided."""
    failed = TROUBLE * 6
    fixes = [fix(35 * n + 4) for n in range(6)]
    [one] = [i for i in said(history(failed), fixes) if i.type == "error_solution"]
    assert one.title == "Remedy reconnect worked 6 of 6 times against E in f: no"
    assert "tier: supported" in one.content
    assert "4 more incidents, another version" in one.content
    assert one.facts["worked"] == one.facts["tried"] == 6
    assert "fix179" in one.evidence
    until = one.time_unix_nano
    before = said(history(failed), fixes, Window(0, until))
    assert not [i for i in before if i.time_unix_nano >= until]
    assert one in said(history(failed), fixes, Window(until, until + 1))


def test_what_is_undecided_is_not_said() -> None:
    """An open trial and an error that still occurs, in a window from the beginning of time."""
    assert said(history([True] * 5), [fix(4)]) == []
    assert said(history(runs((5, True), (1, False))), [fix(4)]) == []


def test_regressed_names_the_version() -> None:
    """A failure of the fixed arm after the resolution, and none of an old version."""
    failed = runs((30, True), (200, False), (1, True), (5, False))
    versions = ["1"] * 30 + ["2"] * 200 + ["1"] * 1 + ["2"] * 5
    known = {("shop", "E in f"): [("2", at(30), at(200), "m")]}
    assert not [
        one for one in statements(history(failed, versions), [], ALWAYS, known)
        if one.facts.get("state") == "regressed"
    ]  # fmt: skip
    versions[230] = "3"
    [one] = [
        one for one in statements(history(failed, versions), [], ALWAYS, known)
        if one.facts.get("state") == "regressed"
    ]  # fmt: skip
    assert one.title.startswith("Regressed in shop in version 3")
    assert one.evidence[0] == "m"


# -- from a lake -----------------------------------------------------------------------------------


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Collecting]:
    """A home that was never used."""
    made = Collecting(Home(tmp_path / "home"))
    yield made
    made.close()


def request(number: int, fails: bool, when: int) -> Span:
    """A request, at a time."""
    made = Span(
        trace_id=trace_id(number), span_id=span_id(number),
        name="POST /pay", kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=when, end_time_unix_nano=when + SECOND // 10,
        attributes=attributes({"http.request.method": "POST", "http.route": "/pay"}),
    )  # fmt: skip
    if fails:
        made.status.code = Status.STATUS_CODE_ERROR
        event = made.events.add(name="exception", time_unix_nano=when + SECOND // 20)
        event.attributes.extend(
            attributes({"exception.type": "TimeoutError", "exception.message": f"no {number}",
                        "exception.stacktrace": STACK})
        )  # fmt: skip
    return made


def remedy(when: int, number: int) -> Any:
    """What the app says of a remedy."""
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

    return LogRecord(
        event_name="engram.error_resolution", time_unix_nano=when,
        attributes=attributes({
            "engram.id": f"r{number}", "engram.title": "reconnect: fixed", "remedy": "reconnect",
            "error_type": "TimeoutError", "result": "fixed",
        }),
    )  # fmt: skip


def test_from_telemetry_to_this_fix_worked_6_of_6_times(collecting: Collecting) -> None:
    """Requests that fail, a remedy each time: the memory says so, and a second run says it once."""
    records: list[Any] = []
    for incident in range(6):
        for n in range(35):
            number = incident * 35 + n
            when = T0 + number * MINUTE
            records.append(request(number + 1, n < 5, when))
            if n == 4:
                records.append(remedy(when + SECOND, incident))
    collecting.send(*records)
    now = T0 + len(records) * MINUTE
    runner = Runner(collecting.home, [JOB], clock=lambda: now)
    [run] = runner.step()
    assert run.error == ""
    collecting.commit()
    sql = (
        "SELECT title, content, attributes FROM lake.memories WHERE type = 'error_solution' "
        "ORDER BY title"
    )
    rows = collecting.rows(sql)
    assert len(rows) == 1
    assert rows[0][0].startswith("Remedy reconnect worked 6 of 6 times against TimeoutError in")
    assert '"worked":6' in rows[0][2].replace(" ", "")
    again = Runner(collecting.home, [JOB], clock=lambda: now)
    again.step(since=0)
    collecting.commit()
    assert collecting.rows(sql) == rows
