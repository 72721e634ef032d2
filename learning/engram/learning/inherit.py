"""Whose a memory is when its own record does not say: user, session and conversation of its trace.

Pure functions. They are monotone: of more spans of a trace they find the same or something with a
higher rank (`engram.exporters.own.INFERRED`), so it does not matter in which order spans arrive,
nor how often one looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from engram.exporters.own import INFERRED

ONLY, UNDECIDED, ROOT, ABOVE = INFERRED

Values = tuple[str | None, str | None, str | None]
"""One for each of `own.INHERITED`."""

NOTHING: Final[Values] = (None, None, None)


@dataclass(frozen=True, slots=True)
class Trace:
    """What the spans and logs of a trace that are here say, all together."""

    least: Values
    greatest: Values
    """Equal to `least` where all that say something say the same."""

    root: Values
    """What the span without a parent says; of several the greatest."""

    @property
    def disputed(self) -> bool:
        """Whether somebody must look at the spans one by one."""
        return self.least != self.greatest


@dataclass(frozen=True, slots=True)
class Place:
    """One span of a trace, or a log in one."""

    span_id: str
    parent_span_id: str | None
    values: Values


@dataclass(frozen=True, slots=True)
class Found:
    """What a memory inherits: a value and its certainty for each field, None and "" for none."""

    values: Values
    certainty: tuple[str, str, str]


def inherit(trace: Trace, span_id: str | None, places: Iterable[Place] = ()) -> Found:
    """What a memory of a span inherits from its trace.

    `places` are needed only for a trace that is `disputed`. Where several values are in a trace, it
    is the one nearest above the span, else the root's, else none: rather no user than another's.
    """
    above = _above(span_id, places) if trace.disputed and span_id else NOTHING
    values: list[str | None] = []
    certainty: list[str] = []
    for least, greatest, root, near in zip(
        trace.least, trace.greatest, trace.root, above, strict=True
    ):
        if least is None:
            found: tuple[str | None, str] = None, ""
        elif least == greatest:
            found = least, ONLY
        elif near is not None:
            found = near, ABOVE
        elif root is not None:
            found = root, ROOT
        else:
            found = "", UNDECIDED
        values.append(found[0])
        certainty.append(found[1])
    return Found((values[0], values[1], values[2]), (certainty[0], certainty[1], certainty[2]))


def _above(span_id: str, places: Iterable[Place]) -> Values:
    """The values nearest to a span on the way up, itself first, as far as the way is known."""
    at: dict[str, list[Place]] = {}
    for place in places:
        at.setdefault(place.span_id, []).append(place)
    near: list[str | None] = [None, None, None]
    level, seen = {span_id}, {span_id}
    while level and None in near:
        here = [place for one in level for place in at.get(one, ())]
        for i, value in enumerate(near):
            if value is None:
                near[i] = max((v for place in here if (v := place.values[i])), default=None)
        level = {one for place in here if (one := place.parent_span_id)} - seen
        seen |= level
    return near[0], near[1], near[2]


def news(found: Found, known: Values, ranks: str) -> Found | None:
    """What is better than what a memory has; None when nothing is.

    `ranks` are those of its user, session and conversation, as they are stored.
    """
    values: list[str | None] = [None, None, None]
    certainty = ["", "", ""]
    for i, (value, sure) in enumerate(zip(found.values, found.certainty, strict=True)):
        have = known[i]
        if value is not None and (have is None or (sure, value) > (ranks[i], have)):
            values[i], certainty[i] = value, sure
    if values == [None, None, None]:
        return None
    return Found((values[0], values[1], values[2]), (certainty[0], certainty[1], certainty[2]))
