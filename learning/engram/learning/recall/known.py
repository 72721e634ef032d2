"""Have we seen this error before, how often, and what helped?

An error is the same when its type and the innermost frame of the app's own code are: what a message
says besides makes no other error of it. Where nobody sent a stack, it is the type and the masked
message. What is only similar (the same cause as far as frames tell) is told as such, and its
solutions are not told as this one's. "Not seen" is an answer.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from engram.exporters.errors import BadRequest
from engram.exporters.rules.read import mask, top_frame
from engram.learning.jobs.errors import PATTERN
from engram.learning.recall.attempts import attempts
from engram.learning.similar import SimilarTraces, Trace
from engram.learning.stacks import Cause, causes

Ask = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Rows of a query over the lake."""

Match = Literal["exact", "similar", "file", "none"]

ALIKE: Final = 0.55
"""Likeness from which two errors are told as similar (`similar.py`, 0..1).

Four in five errors that have another of the same bug find it so, and one in seven is shown one of
another bug (docs/benchmarks.md): which is why they are told apart from the same error.
"""

CHARACTERS: Final = 100_000
"""Of a text that are read."""

_KEEP_S: Final = 5.0
"""For which what the lake has of patterns is used again."""

_PATTERNS: Final = 20_000
"""Errors that are compared at most: the newest."""

_MESSAGES: Final = 20
"""Messages of an error that are compared."""

_UNTRUSTED: Final = ("browser", "unknown")

TIERS: Final = ("auto-eligible", "proven", "supported", "candidate", "recorded", "refuted")
"""Best first; `recorded` was written down by somebody and never observed here."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Something that was done against an error, and how it went."""

    id: str
    """Its memory."""
    title: str
    content: str
    tier: str
    worked: int
    tried: int
    low: float | None
    """Lower 95 % bound of its success rate; None where nothing was observed."""
    fix: str
    kind: str
    """`remedy`, `deploy`, ...; `recorded` when somebody wrote it down."""
    at: datetime | None

    @property
    def rank(self) -> tuple[int, float, int]:
        """Best first."""
        place = TIERS.index(self.tier) if self.tier in TIERS else len(TIERS)
        return place, -(self.low or 0.0), -self.worked


@dataclass(frozen=True, slots=True)
class KnownPattern:
    """An error that is remembered."""

    service: str | None
    pattern: str
    type: str
    title: str
    count: int
    first_seen: datetime
    last_seen: datetime
    users: int
    """Different users that met it."""
    state: str | None
    """The newest statement on it: new, back, spike, gone, resolved, regressed."""
    state_since: datetime | None
    memory_id: str
    """Its newest occurrence."""
    likeness: float
    """1 for the same error."""
    because: str
    """Why it is taken for it."""
    solutions: tuple[Solution, ...] = ()
    """Best first."""


@dataclass(frozen=True, slots=True)
class KnownError:
    """The answer."""

    match: Match
    patterns: tuple[KnownPattern, ...]
    similar: tuple[KnownPattern, ...] = ()
    """Other errors, of perhaps the same cause."""

    @property
    def best(self) -> Solution | None:
        """The solution that worked best against this very error."""
        found = [one for pattern in self.patterns for one in pattern.solutions]
        found = [one for one in found if one.tier != "refuted"]
        return min(found, key=lambda one: one.rank, default=None)


@dataclass(slots=True)
class _Pattern:
    service: str
    pattern: str
    type: str
    frame: str
    title: str
    count: int
    first: int
    last: int
    users: int
    memory_id: str
    stack: str
    messages: frozenset[str]
    trace: Trace | None = field(default=None)


class KnownErrors:
    """Looks errors up. Safe for several threads."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._read = -_KEEP_S
        self._patterns: list[_Pattern] = []
        self._alike: SimilarTraces | None = None

    def find(
        self,
        text: str | None = None,
        *,
        error_type: str | None = None,
        message: str | None = None,
        file: str | None = None,
        service: str | None = None,
        limit: int = 5,
    ) -> KnownError:
        """What is known of an error: its stack trace or message as text, or its parts.

        With `file` alone: the errors that occurred in it, the newest first.

        Raises:
            BadRequest: nothing was given.
        """
        if not (text or error_type or message or file):
            raise BadRequest("give the text of an error, its type, its message, or a file")
        chain = _chain(text, error_type, message)
        with self._lock:
            self._refresh()
            known = [one for one in self._patterns if service in (None, one.service)]
            if not chain:
                found = [(one, 1.0, f"it occurred in {file}") for one in known if _in(one, file)]
                return self._told("file" if found else "none", found[:limit], [])
            exact: list[tuple[_Pattern, float, str]] = []
            for cause, frame in chain:
                exact = [
                    (one, 1.0, why)
                    for one in known
                    if (why := _same(one, cause, frame)) and (not file or _in(one, file))
                ]
                if exact:
                    break
            names = {(one.service, one.pattern) for one, *_ in exact}
            similar = [
                (one, score, why)
                for one, score, why in self._similar(chain[0][0], limit + len(exact))
                if (one.service, one.pattern) not in names and service in (None, one.service)
            ][:limit]
        return self._told(
            "exact" if exact else "similar" if similar else "none", exact[:limit], similar
        )

    # -- what the lake has -------------------------------------------------------------------------

    def _refresh(self) -> None:
        if time.monotonic() - self._read < _KEEP_S:
            return
        rows = self._ask(
            f"""
            SELECT service, pattern, arg_max(type, time), arg_max(frame, time),
                arg_max(title, (time, id)), count(*), min(time), max(time),
                count(DISTINCT user_id), arg_max(id, (time, id)), arg_max(stack, time),
                list_slice(list(DISTINCT message ORDER BY message), 1, {_MESSAGES})
            FROM (
                SELECT coalesce(service_name, '') AS service, id, title, user_id,
                    time_unix_nano AS time,
                    coalesce(json_extract_string(attributes, '$.type'), '') AS type,
                    coalesce(json_extract_string(attributes, '$.frame'), '') AS frame,
                    coalesce(json_extract_string(attributes, '$.stacktrace'), '') AS stack,
                    coalesce(json_extract_string(attributes, '$.message'), '') AS message,
                    {PATTERN} AS pattern
                FROM lake.memories
                WHERE memories.type IN ('system_error', 'ui_error') AND fingerprint IS NOT NULL
            ) GROUP BY service, pattern ORDER BY max(time) DESC, service, pattern LIMIT {_PATTERNS}
            """,
            [],
        )
        patterns = []
        for row in rows:
            (service, pattern, type_, frame, title, count, first, last, users, id_, stack,
             messages) = row  # fmt: skip
            patterns.append(
                _Pattern(
                    service, pattern, type_ or "", frame or "", title or "", count, first, last,
                    users, id_, stack or "", frozenset(mask(one)[:300] for one in messages if one),
                )
            )  # fmt: skip
        self._patterns = patterns
        self._alike = None
        self._read = time.monotonic()

    def _similar(self, cause: Cause, limit: int) -> list[tuple[_Pattern, float, str]]:
        if not cause.frames:
            return []
        if self._alike is None:
            self._alike = SimilarTraces()
            traces = []
            for number, one in enumerate(self._patterns):
                chain = causes(one.stack, type_=one.type) if one.stack else ()
                if chain and chain[0].frames:
                    traces.append(_trace(str(number), chain[0]))
            self._alike.add(traces)
        found = self._alike.search(_trace("", cause), limit)
        return [
            (self._patterns[int(id_)], round(score, 3), "its frames, type and words are alike")
            for id_, score in found
            if score >= ALIKE
        ]

    def _told(
        self,
        match: Match,
        exact: Sequence[tuple[_Pattern, float, str]],
        similar: Sequence[tuple[_Pattern, float, str]],
    ) -> KnownError:
        wanted = [one for one, *_ in (*exact, *similar)]
        states = self._states(wanted)
        solutions = self._solutions(wanted)

        def told(of: Iterable[tuple[_Pattern, float, str]]) -> tuple[KnownPattern, ...]:
            made = []
            for one, likeness, because in of:
                key = one.service, one.pattern
                state, since = states.get(key, (None, None))
                made.append(
                    KnownPattern(
                        one.service or None, one.pattern, one.type, one.title, one.count,
                        _time(one.first), _time(one.last), one.users, state,
                        None if since is None else _time(since), one.memory_id, likeness, because,
                        tuple(sorted(solutions.get(key, []), key=lambda s: s.rank)),
                    )
                )  # fmt: skip
            return tuple(made)

        return KnownError(match, told(exact), told(similar))

    def _states(self, wanted: Sequence[_Pattern]) -> dict[tuple[str, str], tuple[str, int]]:
        if not wanted:
            return {}
        rows = self._ask(
            """
            SELECT coalesce(service_name, '') AS service,
                json_extract_string(attributes, '$.pattern') AS pattern,
                arg_max(json_extract_string(attributes, '$.state'), (time_unix_nano, id)),
                max(time_unix_nano)
            FROM lake.memories
            WHERE type = 'ai_insight'
                AND trust = 'engram'
                AND json_extract_string(attributes, '$.job') IN ('errors', 'solutions')
                AND list_contains(?, json_extract_string(attributes, '$.pattern'))
            GROUP BY ALL
            """,
            [[one.pattern for one in wanted]],
        )
        return {(service, pattern): (state, at) for service, pattern, state, at in rows if state}

    def _solutions(self, wanted: Sequence[_Pattern]) -> dict[tuple[str, str], list[Solution]]:
        """Of each pattern: what was observed, the newest of each fix; and what was written down."""
        found: dict[tuple[str, str], list[Solution]] = {}
        if not wanted:
            return found
        rows = self._ask(
            """
            SELECT id, title, content, attributes, time_unix_nano, subject, outcome,
                coalesce(service_name, ''), trust
            FROM lake.memories
            WHERE type = 'error_solution' AND coalesce(trust, 'unknown') NOT IN (?, ?)
            ORDER BY time_unix_nano DESC, id
            """,
            list(_UNTRUSTED),
        )
        seen: set[tuple[str, str, str]] = set()
        for id_, title, content, attributes, at, subject, outcome, service, trust in rows:
            said = _json(attributes)
            for one in wanted:
                key = one.service, one.pattern
                if said.get("job") == "solutions":
                    if trust != "engram":
                        continue  # nobody else counts for us
                    if service != one.service or said.get("pattern") != one.pattern:
                        continue
                    name = f"{said.get('kind')}: {said.get('fix')}"
                    tier, kind, fix = said.get("tier"), said.get("kind"), said.get("fix")
                    worked, tried, low = said.get("worked"), said.get("tried"), said.get("low")
                elif _against(said, subject, one):
                    name, kind, tier = id_, "recorded", "recorded"
                    fix = said.get("solution") or title
                    worked, tried = int(outcome == "ok"), int(outcome in ("ok", "error"))
                    low = None
                else:
                    continue
                if (*key, name) not in seen:
                    seen.add((*key, name))
                    found.setdefault(key, []).append(
                        Solution(
                            id_, title or "", content or "", str(tier), _whole(worked),
                            _whole(tried), None if low is None else float(low), str(fix), str(kind),
                            None if at is None else _time(at),
                        )
                    )  # fmt: skip
        return self._tried(found)

    def _tried(
        self, found: dict[tuple[str, str], list[Solution]]
    ) -> dict[tuple[str, str], list[Solution]]:
        """With the tries that were told of what somebody wrote down."""
        written = {one.id for some in found.values() for one in some if one.kind == "recorded"}
        told = attempts(self._ask, sorted(written))
        return {
            key: [
                replace(one, tried=one.tried + told[one.id][0], worked=one.worked + told[one.id][1])
                if one.id in told
                else one
                for one in some
            ]
            for key, some in found.items()
        }


def _chain(
    text: str | None, error_type: str | None, message: str | None
) -> list[tuple[Cause, str | None]]:
    """The causes with the frame that the rules would have taken: what was raised comes first."""
    text = (text or "")[:CHARACTERS]
    found = list(causes(text, type_=error_type, message=message)) if text else []
    if not found and (error_type or message):
        found = [Cause(error_type, message or "", "raised")]
    if text and not any(one.frames for one in found):
        # A line such as `TimeoutError: no answer`, or a message alone.
        line = next((line for line in text.splitlines() if line.strip()), "").strip()
        said = re.fullmatch(r"((?:[\w$]+[./])*[A-Z][\w$]*):\s+(.*)", line)
        found = [Cause(said[1], said[2], "raised") if said else Cause(error_type, line, "raised")]
    frame = top_frame(text) if text else None
    return [(one, frame if at == 0 else None) for at, one in enumerate(found)]


def _same(one: _Pattern, cause: Cause, frame: str | None) -> str:
    """Why a pattern is this error; empty when it is not."""
    type_ = _bare(cause.type or "")
    if frame and one.frame:
        if frame == one.frame and type_ == _bare(one.type):
            return f"the same type raised in {frame}"
        return ""
    if type_ and type_ != _bare(one.type):
        return ""
    if cause.frames:
        return ""  # frames, and none of the app's own: not comparable by words
    if cause.message:
        masked = mask(cause.message)[:300]
        if masked in one.messages:
            return "the same words" + (" and type" if type_ else "")
        return ""
    return "the same type" if type_ else ""


def _trace(id_: str, cause: Cause) -> Trace:
    return Trace(
        id_, _bare(cause.type or ""), cause.message,
        tuple((re.split(r"[/\\]", one.file)[-1], one.function) for one in cause.frames),
    )  # fmt: skip


def _against(said: dict[str, Any], subject: str | None, one: _Pattern) -> bool:
    """Whether a solution that somebody wrote down is against an error."""
    type_ = str(said.get("error_type") or "")
    if type_:
        if _bare(type_) != _bare(one.type):
            return False
        message = said.get("error_message")
        return not message or mask(str(message))[:300] in one.messages
    if pattern := said.get("pattern"):
        try:
            return any(re.search(str(pattern), message) for message in (*one.messages, one.title))
        except re.error:
            return False
    return bool(subject) and _bare(str(subject)) == _bare(one.type)


def _in(one: _Pattern, file: str | None) -> bool:
    name = re.split(r"[/\\]", file or "")[-1]
    return bool(name) and (one.frame.startswith(f"{name}:") or (file or "") in one.stack)


def _bare(type_: str) -> str:
    return re.split(r"[./]", type_)[-1].lstrip("*")


def _json(text: str | None) -> dict[str, Any]:
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _whole(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError):
        return 0


def _time(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1e9, UTC)


__all__ = ["KnownError", "KnownErrors", "KnownPattern", "Solution"]
