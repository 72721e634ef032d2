"""A context window: what an agent or a person should know before the next step, within a budget.

Sections, the steadiest first so that the beginning of the text stays the same from turn to turn:
what was decided, known solutions, open problems, similar memories, and last what happened recently,
oldest first. An item is told whole, or shortened and says so, or left out and counted. The same
memories and the same question give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.errors import BadRequest, NotFound
from engram.learning.recall import fence
from engram.learning.recall.folding import equal
from engram.learning.recall.items import ALL, Found, Item, Scope
from engram.learning.recall.judging import together
from engram.learning.recall.problems import OPEN_NS, PROBLEMS, open_problems
from engram.learning.recall.suspects import DECISIONS, SOLUTIONS, believed, suspicious
from engram.learning.recall.tokens import Tokenizer, count

if TYPE_CHECKING:
    from engram.learning.recall.engine import Recall

SECTIONS: Final = ("decisions", "known solutions", "open problems", "similar", "recent")
"""In the order in which they are told."""

_MOVING: Final = ("similar", "recent")
"""Sections in a fence of their own, as they change from turn to turn: the number in the marks of
the first one, and with it the beginning of the text, stays while its sections do."""

_SHARES: Final = {"known solutions": 0.20, "open problems": 0.15, "decisions": 0.15,
                  "recent": 0.35, "similar": 0.15}  # fmt: skip
"""Of the budget, in the order in which they take it; what one leaves the later ones have."""

_MOST: Final = {"known solutions": 5, "open problems": 5, "decisions": 5, "similar": 10}
"""Items of each section but the last; of small windows a fifth."""

NOISE: Final = (
    "page_view", "performance_metric", "request_intent", "langgraph_node", "memory_revision",
    "enrichment",
)  # fmt: skip
"""Types of which nobody wants the newest fifty."""

_PROBLEMS: Final = 12
"""The newest failures of which the open problems are."""

_LONG: Final = 1_200
"""Characters of an item's content before it is shortened; a quarter of the budget at most."""

_LEAST_TOKENS: Final = 150
"""The marks, the notice and one short item."""

_ASKED: Final = 3
"""Recent sayings that are the question where none is asked."""

_SAID: Final = (
    "user_interaction", "aurea_conversation", "ai_response", "aurea_response", "request_intent",
)  # fmt: skip
_QUESTION_CHARS: Final = 400

_FIELDS: Final = 20
"""Fields of an item that a window tells, of at most so many characters each."""
_FIELD: Final = 200

Truncated = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """What is told, and how much is left out."""

    sections: Mapping[str, tuple[Item, ...]]
    text: str
    """As Markdown between the marks of a fence: data, not instructions."""
    token_count: int
    """Of the text."""
    truncated: Truncated = field(default_factory=dict)
    """Items that were found and are not told, by section; and how many are shortened."""
    note: str = ""
    """What the reader must know, such as that nothing could be searched."""
    most: int | None = None
    """Characters of a content, where it is shortened."""

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, oldest first."""
        every = [one for items in self.sections.values() for one in items]
        return tuple(sorted(every, key=_age))

    @property
    def sources(self) -> tuple[str, ...]:
        """The ids of the memories that are told."""
        return tuple(one.id for items in self.sections.values() for one in items)

    def messages(self) -> list[dict[str, str]]:
        """As one message of the user: never of the system, whose words count as orders."""
        return [{"role": "user", "content": self.text}]

    def json(self) -> dict[str, Any]:
        """For programs: the fenced text, and the items with their texts made harmless."""
        return {
            "text": self.text,
            "notice": fence.NOTICE,
            "token_count": self.token_count,
            "truncated": dict(self.truncated),
            "note": self.note,
            "sections": {
                name: [_plain(one, self.most) for one in items]
                for name, items in self.sections.items()
            },
        }

    def __str__(self) -> str:
        return self.text


def context_window(
    recall: Recall,
    *,
    scope: Scope = ALL,
    window_size: int = 50,
    include_similar: bool = True,
    max_tokens: int | None = None,
    query: str | None = None,
    as_of_ns: int | None = None,
    agent: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> ContextWindow:
    """See `Recall.context_window`."""
    if not 1 <= window_size <= 200:
        raise BadRequest(f"window_size must be from 1 to 200, not {window_size}")
    if max_tokens is not None and max_tokens < _LEAST_TOKENS:
        raise BadRequest(f"max_tokens must be at least {_LEAST_TOKENS}, not {max_tokens}")
    now = recall.clock() if as_of_ns is None else as_of_ns
    recent, problems = _recent(recall, scope, window_size, as_of_ns, agent)
    searched = None
    if query is not None and query.strip():
        searched = _search(recall, query, scope, include_similar, as_of_ns)
    found: dict[str, list[Item]] = {"open problems": open_problems(recall, problems, now, as_of_ns)}
    question = _question(recent, found["open problems"])
    note = ""
    if searched is None and question:
        searched = _search(recall, question, scope, include_similar, as_of_ns)
    if searched is not None:
        similar, known, note = searched
        found["similar"] = similar
        found["known solutions"] = [one for one in known if believed(one)]
        found["decisions"] = [
            one
            for one in known
            if one.memory_type in DECISIONS and one.superseded_by is None and not suspicious(one)
        ]
    found["recent"] = recent
    return _assembled(_distinct(found, window_size), max_tokens, tokenizer or count, note)


# -- what is found ---------------------------------------------------------------------------------


def _recent(
    recall: Recall, scope: Scope, most: int, as_of_ns: int | None, agent: str | None
) -> tuple[list[Item], list[Item]]:
    """The newest memories of a scope, newest first and folded, and the newest failures in it."""
    recent, problems = recall.newest_of(
        scope, without=NOISE, also=PROBLEMS, limits=(most, _PROBLEMS),
        also_since_ns=(recall.clock() if as_of_ns is None else as_of_ns) - OPEN_NS,
        as_of_ns=as_of_ns,
    )  # fmt: skip
    if agent is not None:
        mine = f"agent:{agent}".casefold()
        recent = [
            one
            for one in recent
            if not any(tag.startswith("agent:") for tag in one.tags)
            or mine in (tag.casefold() for tag in one.tags)
        ]
    return _folded(recent), problems


def _search(
    recall: Recall, question: str, scope: Scope, similar: bool, as_of_ns: int | None
) -> tuple[list[Item], list[Item], str]:
    """What is like the question, and what is known to help with it."""
    try:
        like = Found(())
        if similar:
            like = recall.search(question, scope=scope, limit=10, as_of_ns=as_of_ns)
        # Who solved it before does not matter: what helps one helps all of a service.
        wide = Scope(service=scope.service)
        known = recall.search(
            question, scope=wide, types=(*SOLUTIONS, *DECISIONS), limit=10, as_of_ns=as_of_ns
        )
    except NotFound as error:
        return [], [], f"nothing was searched: {error}"
    except BadRequest:
        return [], [], ""  # a question without a word
    return [*like.items], [*known.items], like.note or known.note


def _question(recent: Sequence[Item], problems: Sequence[Item]) -> str:
    said = [one for one in recent if one.memory_type in _SAID] or list(recent)
    texts = [one.title for one in (*said[:_ASKED], *problems[:1])]
    return "\n".join(text for text in texts if text)[:_QUESTION_CHARS]


def _folded(items: Sequence[Item]) -> list[Item]:
    """Repetitions of an item are counted by the first of them."""
    kept: list[Item] = []
    for one in items:
        for at, other in enumerate(kept):
            if equal(other, one):
                kept[at] = together(other, one)
                break
        else:
            kept.append(one)
    return kept


def _distinct(found: Mapping[str, list[Item]], window_size: int) -> dict[str, list[Item]]:
    """Each item in one section, no more than fit the window; of the last the newest."""
    seen: set[str] = set()
    kept: dict[str, list[Item]] = {}
    left = window_size
    for name in ("known solutions", "open problems", "decisions", "similar"):
        most = min(_MOST[name], max(1, window_size // 5))
        some = list[Item]()
        for one in found.get(name, ()):
            if one.id not in seen and len(some) < most and left > 1:
                seen.add(one.id)
                some.append(one)
                left -= 1
        kept[name] = some
    kept["recent"] = [one for one in found["recent"] if one.id not in seen][:left]
    return kept


# -- what is told ----------------------------------------------------------------------------------


def _assembled(
    found: Mapping[str, list[Item]], max_tokens: int | None, tokens: Tokenizer, note: str
) -> ContextWindow:
    most = _LONG if max_tokens is None else min(_LONG, max_tokens)
    kept = {name: list(items) for name, items in found.items()}
    if max_tokens is not None:
        kept = _fitting(found, max_tokens - tokens(_text(_NOTHING, _NOTHING_MORE, 1)), tokens, most)
    while True:
        sections = {name: tuple(sorted(kept[name], key=_age)) for name in SECTIONS if kept[name]}
        left_out = {
            name: missing
            for name in SECTIONS
            if (missing := len(found.get(name, ())) - len(kept[name]))
        }
        short = sum(
            len(fence.clean(one.content)) > most for items in sections.values() for one in items
        )
        text = _text(sections, left_out, most)
        size = tokens(text)
        if max_tokens is None or size <= max_tokens or not sections:
            truncated = {**left_out, **({"shortened": short} if short else {})}
            return ContextWindow(sections, text, size, truncated, note, most)
        # A tokenizer may count a text as more than its parts.
        last = next(name for name in ("similar", "recent", *SECTIONS) if kept[name])
        kept[last].pop()


_NOTHING: Final[Mapping[str, Sequence[Item]]] = {"decisions": ()}
_NOTHING_MORE: Final = dict.fromkeys(SECTIONS, 99)
"""With which a text has all of its marks and notes and no item."""


def _fitting(
    found: Mapping[str, list[Item]], budget: int, tokens: Tokenizer, most: int
) -> dict[str, list[Item]]:
    """The first items of each section that fit its share, and then what fits the rest."""
    costs = {
        one.id: tokens("\n".join(fence.lines(one, most=most)) + "\n")
        for items in found.values()
        for one in items
    }
    kept: dict[str, list[Item]] = {name: [] for name in SECTIONS}
    heads = {name: tokens(f"## {name}\n") for name in SECTIONS}
    left = float(budget)
    for whole in (False, True):
        carried = 0.0
        for name, share in _SHARES.items():
            may = left if whole else min(left, share * budget + carried)
            before = left
            for one in found.get(name, ()):
                cost = costs[one.id] + (0 if kept[name] else heads[name])
                # The first of a section may have half of what is left, whatever its share.
                room = may if kept[name] else max(may, left / 2)
                if one in kept[name] or cost > room:
                    continue
                kept[name].append(one)
                may -= cost
                left -= cost
            carried = max(0.0, share * budget + carried - (before - left))
    return kept


def _text(sections: Mapping[str, Sequence[Item]], left_out: Mapping[str, int], most: int) -> str:
    steady, moving = list[str](), list[str]()
    for name, items in sections.items():
        body = moving if name in _MOVING else steady
        body.append(f"## {name}")
        for one in items:
            body += fence.lines(one, most=most)
    if left_out:
        told = ", ".join(f"{number} of {name}" for name, number in left_out.items())
        moving.append(f"Left out for want of room: {told}.")
    if not steady and not moving:
        moving.append("Nothing relevant is remembered.")
    return "\n".join(
        fence.fenced("\n".join(body), notice=body is steady or not steady)
        for body in (steady, moving)
        if body
    )


def _plain(one: Item, most: int | None) -> dict[str, Any]:
    told = as_json(one, fence.clean)
    told["content"] = fence.shortened(told["content"], most, one.id)
    told["meta_data"] = _short(one.meta_data)
    return told


def _short(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The short values of a memory's fields: whole stack traces and payloads are told by `get`."""
    told: dict[str, Any] = {}
    for name, value in sorted(meta.items()):
        if len(told) == _FIELDS:
            break
        short = value is None or isinstance(value, bool | int | float)
        if short or (isinstance(value, str) and len(value) <= _FIELD):
            told[fence.clean(name)] = fence.harmless(value)
    return told


def as_json(one: Item, clean: Callable[[str], str] = str) -> dict[str, Any]:
    """An item as JSON tells it everywhere."""

    def text(value: str | None) -> str | None:
        return None if value is None else clean(value)

    return {
        "id": one.id, "memory_type": clean(one.memory_type), "title": clean(one.title),
        "content": clean(one.content), "tags": [clean(tag) for tag in one.tags],
        "meta_data": dict(one.meta_data),
        "created_at": one.created_at and one.created_at.isoformat(),
        "score": one.score, "importance": one.importance, "user_id": text(one.user_id),
        "session_id": text(one.session_id), "service": text(one.service),
        "outcome": text(one.outcome), "duration_ms": one.duration_ms,
        "trace_id": text(one.trace_id), "source": text(one.source), "trust": text(one.trust),
        "count": one.count, "first_seen": one.first_seen and one.first_seen.isoformat(),
        "last_seen": one.last_seen and one.last_seen.isoformat(), "pinned": one.pinned,
        "superseded_by": one.superseded_by, "why": dict(one.why),
    }  # fmt: skip


def _age(one: Item) -> tuple[int, str]:
    return one.time_unix_nano or 0, one.id


__all__ = ["SECTIONS", "ContextWindow", "as_json", "context_window"]
