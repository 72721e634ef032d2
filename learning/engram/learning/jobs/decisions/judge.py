"""What may be said of outcomes, and what is chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engram.learning.exposure import Exposure
from engram.learning.intervals import difference, discoveries, fisher, wilson
from engram.learning.jobs.decisions.known import DAY, RECENT, Context, Day
from engram.learning.jobs.insight import Insight

ENOUGH: Final = 20
"""Outcomes on each side."""
SURE: Final = 50
"""Outcomes with a stated confidence."""
LEAST: Final = 0.1
"""A difference of less is nothing to act on."""
LEAST_CONTEXT: Final = 0.2
"""Of contexts there are many, and of what differs between them more than one word."""
SHARE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Tested:
    """One comparison, with what would be said of it."""

    p: float
    enough: bool
    insight: Insight


def judge(
    days: Sequence[Day], contexts: Sequence[Context], end: int, job: str
) -> Iterator[Insight]:
    """What can be said at the end of a day, of all that is compared then."""
    by_option: dict[tuple[str, str, str], list[Day]] = defaultdict(list)
    by_decision: dict[tuple[str, str], list[Day]] = defaultdict(list)
    for one in days:
        by_option[one.service, one.decision, one.chosen].append(one)
        by_decision[one.service, one.decision].append(one)
    say = _Say(end, job)
    tested: list[Tested] = []
    for option, some in sorted(by_option.items()):
        tested += _drift(option, some, say)
    for decision, some in sorted(by_decision.items()):
        lately = [one for one in some if one.day >= end // DAY - 28]
        tested += _calibration(decision, lately, say)
        tested += _option(decision, lately, say)
    tested += _contexts(contexts, say)
    believed = discoveries([one.p for one in tested], SHARE)
    for found, so in zip(tested, believed, strict=True):
        if so and found.enough:
            yield found.insight


@dataclass(frozen=True, slots=True)
class _Say:
    end: int
    job: str

    def __call__(
        self, about: tuple[str, ...], state: str, title: str, content: str,
        evidence: Sequence[str], importance: float, **facts: Any,
    ) -> Insight:  # fmt: skip
        service = about[1] or None
        return Insight(
            job=self.job, key=(*about, state, str(self.end)),
            title=title, content=content, time_unix_nano=self.end - 1, service=service,
            importance=importance, tags=(f"state:{state}",), evidence=tuple(evidence),
            facts={"state": state, "what": "|".join((*about, state)), "about": about[0],
                   "decision": about[2], **facts},
        )  # fmt: skip


def _drift(option: tuple[str, str, str], some: Sequence[Day], say: _Say) -> Iterator[Tested]:
    last = say.end // DAY - RECENT
    now, then = (
        Exposure(tuple(one.n for one in of), tuple(one.k for one in of))
        for of in ([d for d in some if d.day >= last], [d for d in some if d.day < last])
    )
    if min(now.n, then.n) < ENOUGH:
        return
    # Outcomes come in bursts too (a bad supplier, a campaign): a day is not many cases.
    effect = max(now.design_effect, then.design_effect)
    k1, n1, k0, n0 = (round(one / effect) for one in (now.k, now.n, then.k, then.n))
    low, high = difference(k1, n1, k0, n0)
    rate, before = now.k / now.n, then.k / then.n
    worse = rate < before
    _service, decision, chosen = option
    yield Tested(
        fisher(k1, n1, k0, n0),
        abs(rate - before) >= LEAST,
        say(
            ("drift", *option), "worse" if worse else "better",
            f"{decision}: {chosen} succeeds {'less' if worse else 'more'} often: "
            f"{rate:.0%} of {now.n}, before {before:.0%} of {then.n}",
            f"the last {RECENT} days against the four weeks before; difference between "
            f"{100 * low:.0f} and {100 * high:.0f} points (95 % interval)",
            _shown([d for d in some if d.day >= last], failed=worse),
            0.75 if worse else 0.4,
            chosen=chosen, n=now.n, k=now.k, n_before=then.n, k_before=then.k, low=low, high=high,
        ),
    )  # fmt: skip


def _calibration(decision: tuple[str, str], some: Sequence[Day], say: _Say) -> Iterator[Tested]:
    n = sum(one.sure for one in some)
    variance = sum(one.variance for one in some)
    if n < SURE:
        return
    stated = sum(one.confidence for one in some) / n
    k = sum(one.succeeded for one in some)
    rate = k / n
    seen = Exposure(tuple(one.sure for one in some), tuple(one.succeeded for one in some))
    low, high = wilson(k / seen.design_effect, n / seen.design_effect)
    # Of confidences that are all 0 or 1 chance makes nothing; then the rate itself is the scale.
    spread = max(variance, n * rate * (1 - rate)) * seen.design_effect
    score = abs(n * (rate - stated)) / math.sqrt(spread) if spread > 0 else math.inf
    over = stated > rate
    brier = sum(one.brier for one in some) / n
    yield Tested(
        math.erfc(score / math.sqrt(2)),
        abs(stated - rate) >= LEAST,
        say(
            ("calibration", *decision), "overconfident" if over else "underconfident",
            f"{decision[1]} is {'less' if over else 'more'} often right than it says: "
            f"{rate:.0%} of {n}, stated {stated:.0%}",
            f"successes between {low:.0%} and {high:.0%} (95 % interval), confidence {stated:.0%} "
            f"on average\nBrier score {brier:.3f}; always saying {rate:.0%} would have "
            f"{rate * (1 - rate):.3f}",
            _shown(some, failed=over), 0.7,
            n=n, k=k, confidence=stated, brier=brier, low=low, high=high,
        ),
    )  # fmt: skip


def _option(decision: tuple[str, str], some: Sequence[Day], say: _Say) -> Iterator[Tested]:
    options: dict[str, list[Day]] = defaultdict(list)
    for one in some:
        options[one.chosen].append(one)
    known = {
        chosen: (sum(d.k for d in of), sum(d.n for d in of))
        for chosen, of in options.items()
        if sum(d.n for d in of) >= ENOUGH
    }
    if len(known) < 2:
        return
    usual = min(known, key=lambda it: (-known[it][1], it))
    best = min(known, key=lambda it: (-known[it][0] / known[it][1], it))
    if best == usual:
        return
    (k1, n1), (k0, n0) = known[best], known[usual]
    low, high = difference(k1, n1, k0, n0)
    yield Tested(
        fisher(k1, n1, k0, n0),
        k1 / n1 - k0 / n0 >= LEAST,
        say(
            ("option", *decision), "better option",
            f"{decision[1]}: {best} succeeds more often than {usual}: {k1 / n1:.0%} of {n1}, "
            f"{k0 / n0:.0%} of {n0}",
            f"difference between {100 * low:.0f} and {100 * high:.0f} points (95 % interval)\n"
            "they were chosen in different cases: a reason to try it on more, and no proof",
            (*_shown(options[best], failed=False), *_shown(options[usual], failed=True)), 0.65,
            chosen=best, usual=usual, n=n1 + n0, n_best=n1, k_best=k1, n_usual=n0, k_usual=k0,
            low=low, high=high,
        ),
    )  # fmt: skip


def _contexts(contexts: Sequence[Context], say: _Say) -> Iterator[Tested]:
    """Of each option the input that makes the largest difference; all of them are tests."""
    best: dict[tuple[str, str, str], tuple[float, Context]] = {}
    count: dict[tuple[str, str, str], int] = defaultdict(int)
    for one in contexts:
        p = fisher(one.k, one.n, one.others_k, one.others)
        option = (one.service, one.decision, one.chosen)
        count[option] += 1
        if option not in best or (p, one.input, one.value) < (
            best[option][0], best[option][1].input, best[option][1].value,
        ):  # fmt: skip
            best[option] = (p, one)
    for option, (p, one) in sorted(best.items()):
        rate, other = one.k / one.n, one.others_k / one.others
        low, high = difference(one.k, one.n, one.others_k, one.others)
        less = rate < other
        yield Tested(
            min(1.0, p * count[option]),  # the least of so many (Bonferroni)
            abs(rate - other) >= LEAST_CONTEXT,
            say(
                ("context", *option, one.input), "worse here" if less else "better here",
                f"{one.decision}: {one.chosen} succeeds {'less' if less else 'more'} often where "
                f"{one.input} is {one.value}: {rate:.0%} of {one.n}, else {other:.0%} of "
                f"{one.others}",
                f"difference between {100 * low:.0f} and {100 * high:.0f} points (95 % interval), "
                f"the largest of {count[option]} that were compared",
                one.failed if less else one.fine, 0.65,
                chosen=one.chosen, input=one.input, value=one.value, n=one.n + one.others,
                n_here=one.n, k_here=one.k, n_else=one.others, k_else=one.others_k,
                low=low, high=high,
            ),
        )  # fmt: skip


def _shown(of: Sequence[Day], *, failed: bool, most: int = 5) -> tuple[str, ...]:
    ids = [id_ for one in reversed(of) for id_ in (one.failed if failed else one.fine)]
    return tuple(ids[:most])


__all__ = ["ENOUGH", "LEAST", "SURE", "judge"]
