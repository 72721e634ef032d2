"""What can be asked of memory. Reads the lake and the index; writes nothing."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.home import Home
from engram.exporters.index import listed
from engram.exporters.itself.notes import NOTES
from engram.learning.recall import ranking
from engram.learning.recall.endpoints import EndpointMemory, Endpoints
from engram.learning.recall.folding import equal
from engram.learning.recall.items import ALL, Found, Item, Page, Scope
from engram.learning.recall.judging import WEIGHTS, Judging, together, valid
from engram.learning.recall.known import KnownError, KnownErrors
from engram.learning.recall.restating import newest_first
from engram.learning.recall.revisions import TYPE as REVISION
from engram.learning.recall.revisions import Revision, Revisions, applied, versions
from engram.learning.recall.rows import MORE, LakeReader, changed
from engram.learning.recall.subjects import superseded

if TYPE_CHECKING:
    from engram.exporters.words import Terms
    from engram.learning.recall.decisions import DecisionHistory
    from engram.learning.recall.tokens import Tokenizer
    from engram.learning.recall.window import ContextWindow
    from engram.learning.search import Answer, Searcher

MOST: Final = 200
"""Items of one answer."""

_EDITS: Final = 500
"""The newest edited memories that are compared by their new words."""


class Recall:
    """Recall over one home. Constructing opens nothing. Safe for several threads."""

    def __init__(self, home: Home, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.home = home
        self.clock = clock
        self.lake = LakeReader(home)
        self.revisions = Revisions(self.lake)
        self.endpoints = Endpoints(self)
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None
        self._known = KnownErrors(self.lake.ask)

    def search(
        self,
        query: str,
        *,
        scope: Scope = ALL,
        types: Sequence[str] = (),
        tags: Sequence[str] = (),
        since_ns: int | None = None,
        until_ns: int | None = None,
        min_importance: float | None = None,
        limit: int = 10,
        as_of_ns: int | None = None,
        explain: bool = False,
        fold: bool = True,
        fill: bool = False,
    ) -> Found:
        """The memories that answer a question, best first; none when none is relevant.

        All filters hold for every item, and are applied before the search. With `as_of_ns` the
        answer is what it would have been then: nothing later is looked at, also no later change.
        With `fill`, where something is relevant, less relevant memories come too, up to the limit.

        Raises:
            BadRequest: there is nothing to look for, or a limit makes no sense.
            NotFound: this home has no lake or no index yet.
        """
        from dataclasses import asdict

        limit = limit_of(limit)
        now = self.clock() if as_of_ns is None else as_of_ns
        if as_of_ns is not None:
            until_ns = min(as_of_ns + 1, as_of_ns + 1 if until_ns is None else until_ns)
        changes = self.revisions.all(as_of_ns)
        searcher = self.searcher()
        judging = Judging(now_ns=now, fold=fold, revisions=changes, types=types, lake=searcher.lake)
        answer = searcher.answer(
            query, limit=limit, types=list(types) or None, service=scope.service,
            user_id=scope.user_id, session_id=scope.session_id, since_ns=since_ns,
            until_ns=until_ns, min_importance=min_importance, tags=list(tags) or None,
            judge=judging, fill=fill,
        )  # fmt: skip
        shown = judging.items
        relevance = judging.relevance
        for one, share in self._edited(query, changes, shown):
            if _passes(one, scope, types, tags, since_ns, until_ns, min_importance, now):
                shown[one.id] = one
                relevance[one.id] = (share, 0.0)
        items = self._current(list(shown.values()), relevance, as_of_ns, changes)
        ranked = [
            _scored(one, relevance[one.id], now, answer if explain else None)
            for one in items
            if one.id in relevance
        ]
        ranked.sort(key=lambda one: (-(one.score or 0.0), one.id))
        ranked = newest_first(ranked, relevance)
        told = {**asdict(answer.explanation), "weights": WEIGHTS} if explain else {}
        return Found(tuple(ranked[:limit]), answer.note, told)

    def recent(
        self,
        *,
        scope: Scope = ALL,
        types: Sequence[str] = (),
        tags: Sequence[str] = (),
        hours: float | None = None,
        limit: int = 20,
        cursor: str | None = None,
        as_of_ns: int | None = None,
    ) -> Page:
        """The newest memories, a page at a time. What is hidden is left out.

        Raises:
            BadRequest: the cursor or the limit makes no sense.
            NotFound: this home has no lake yet.
        """
        limit = limit_of(limit)
        changes = self.revisions.all(as_of_ns)
        now = self.clock() if as_of_ns is None else as_of_ns
        since = 0 if hours is None else now - int(hours * 3600e9)
        until = (1 << 62) if as_of_ns is None else as_of_ns
        hidden = hidden_ids(changes)
        if not tags and cursor is None:
            rows = self.lake.newest(
                limit + 1, only=_texts(scope, types), since_ns=since, until_ns=until,
                without={} if REVISION in types else {"type": [REVISION]}, hidden=hidden,
            )  # fmt: skip
        else:
            where, values = _where(scope, types, tags)
            where.append(f"time_unix_nano BETWEEN {since} AND {until}")
            if cursor is not None:
                at, id_ = _uncursor(cursor)
                where.append("(time_unix_nano < ? OR (time_unix_nano = ? AND id > ?))")
                values += [at, at, id_]
            if REVISION not in types:
                where.append(f"type <> '{REVISION}'")
            if hidden:
                where.append("NOT list_contains(?, id)")
                values.append(hidden)
            rows = self._newest(where, values, limit + 1)
        items = [applied(one, changes.get(one.id, ())) for one in rows[:limit] if valid(one, now)]
        items = superseded(self.lake, items, as_of_ns, hidden)
        last = rows[limit - 1] if len(rows) > limit else None
        return Page(
            tuple(items), None if last is None else _cursor(last.time_unix_nano or 0, last.id)
        )

    def get(self, memory_id: str, *, as_of_ns: int | None = None) -> Item:
        """One memory as it is now, also a hidden one.

        Raises:
            NotFound: there is no such memory.
        """
        one = applied(self._first(memory_id), self.revisions.of(memory_id, as_of_ns))
        return superseded(self.lake, [one], as_of_ns)[0]

    def history(self, memory_id: str) -> tuple[Item, ...]:
        """One memory as it was written and after each change, oldest first.

        `why` of each says which change made it, and who made that and why.

        Raises:
            NotFound: there is no such memory.
        """
        return versions(self._first(memory_id), self.revisions.of(memory_id))

    def many(self, ids: Sequence[str], *, as_of_ns: int | None = None) -> dict[str, Item]:
        """Memories by id, as they are now; those that are there and not hidden.

        Ids are hashes, so every file is looked into: for a handful.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        changes = self.revisions.all(as_of_ns)
        found = (
            applied(one, changes.get(one.id, ()))
            for one in self.lake.items(f"id IN ({listed(wanted)})", [])
        )
        return {one.id: one for one in found if not one.hidden}

    def _newest(self, where: Sequence[str], values: Sequence[Any], limit: int) -> list[Item]:
        """The newest memories of which conditions hold, newest first, unchanged.

        Which they are is asked of four narrow columns; what they say is then read of those alone.
        """
        rows = self.lake.ask(
            "SELECT id, time_unix_nano FROM lake.memories WHERE time_unix_nano IS NOT NULL AND "
            f"{' AND '.join(where) or 'true'} ORDER BY time_unix_nano DESC, id LIMIT ?",
            [*values, limit],
        )
        if not rows:
            return []
        times = [row[1] for row in rows]
        found = self.lake.at([row[0] for row in rows], times)
        return [found[row[0]] for row in rows if row[0] in found]

    def newest_of(
        self,
        scope: Scope,
        *,
        without: Sequence[str],
        also: Sequence[str],
        limits: tuple[int, int],
        also_since_ns: int = 0,
        as_of_ns: int | None = None,
    ) -> tuple[list[Item], list[Item]]:
        """The newest memories but of some types, and the newest of others; both newest first."""
        changes = self.revisions.all(as_of_ns)
        now = self.clock() if as_of_ns is None else as_of_ns
        until = (1 << 62) if as_of_ns is None else as_of_ns
        hidden = hidden_ids(changes)
        only = _texts(scope, ())
        parts = [
            self.lake.newest(
                limits[0], only=only, without={"type": without}, until_ns=until, hidden=hidden
            ),
            self.lake.newest(
                limits[1], only={**only, "type": also}, since_ns=also_since_ns, until_ns=until,
                hidden=hidden,
            ),
        ]  # fmt: skip
        told = {one.id: one for part in parts for one in part}
        told = {
            id_: changed_one
            for id_, one in told.items()
            if valid(changed_one := applied(one, changes.get(id_, ())), now)
        }
        current = {one.id: one for one in superseded(self.lake, [*told.values()], as_of_ns, hidden)}
        recent, others = ([current[one.id] for one in part if one.id in current] for part in parts)
        return recent, others

    def context_window(
        self,
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
        """What to know before the next step: decided, known to help, open, similar and recent.

        At most `window_size` items in a text of at most `max_tokens`. Without a `query`, what was
        said last is the question. With `agent`, other agents' turns are left out.

        Raises:
            BadRequest: a limit makes no sense.
            NotFound: this home has no lake yet.
        """
        from engram.learning.recall.window import context_window

        return context_window(
            self, scope=scope, window_size=window_size, include_similar=include_similar,
            max_tokens=max_tokens, query=query, as_of_ns=as_of_ns, agent=agent,
            tokenizer=tokenizer,
        )  # fmt: skip

    def decision_history(
        self,
        context: str,
        options: Sequence[object] = (),
        *,
        scope: Scope = ALL,
        limit: int = 100,
        as_of_ns: int | None = None,
    ) -> DecisionHistory:
        """How decisions like this one turned out, by option; everything that a policy needs.

        Raises:
            BadRequest: there is nothing to look for, or the limit makes no sense.
            NotFound: this home has no lake or no index yet.
        """
        from engram.learning.recall.decisions import decision_history

        return decision_history(self, context, options, scope=scope, limit=limit, as_of_ns=as_of_ns)

    def endpoint_memory(self, operation: str, *, service: str | None = None) -> EndpointMemory:
        """How `GET /path` does: requests, errors, durations, what was learned, what fails.

        Microseconds, but for the first question: it is counted once a minute for all operations.

        Raises:
            StoreError: the lake cannot be read.
        """
        with NOTES.timed("endpoint"):
            return self.endpoints.of(operation, service)

    def known_error(self, text: str | None = None, **asked: Any) -> KnownError:
        """What is known of an error; the options of `KnownErrors.find`.

        Raises:
            BadRequest: nothing was given.
            NotFound: this home has no lake yet.
        """
        with NOTES.timed("known") as counts:
            found = self._known.find(text, **asked)
            counts["exact"] = int(found.match == "exact")
            counts["none"] = int(found.match == "none")
            return found

    def close(self) -> None:
        """Let go of everything. Safe twice; the next question opens it again."""
        with self._lock:
            if self._searcher is not None:
                self._searcher.close()
        self.lake.close()

    # -- parts of an answer ------------------------------------------------------------------------

    def searcher(self) -> Searcher:
        """The search beneath it, without what recall knows of importance, age and outcomes."""
        with self._lock:
            if self._searcher is None:
                from engram.learning.search import Searcher  # 100 MB: at the first search only

                self._searcher = Searcher(self.home, more=MORE, lookup=self.lake.lookup)
            return self._searcher

    def _first(self, memory_id: str) -> Item:
        found = self.lake.items("id = ?", [memory_id], "LIMIT 1")
        if not found:
            raise NotFound(f"there is no memory {memory_id}")
        return found[0]

    def _edited(
        self, query: str, changes: dict[str, list[Revision]], shown: dict[str, Item]
    ) -> Iterable[tuple[Item, float]]:
        """Edited memories whose new words answer the question, with the share of its words.

        The index knows the words that a memory was written with.
        """
        from engram.exporters.words import asked, terms
        from engram.learning.search import LEAST_SHARE, share

        edits = [
            (some[-1], id_)
            for id_, some in changes.items()
            if id_ not in shown and any(one.action == "edit" for one in some)
        ]
        wanted: Terms = asked(query)
        shares: dict[str, float] = {}
        for _, id_ in sorted(edits, reverse=True)[:_EDITS]:
            text = " ".join(
                str(one.fields.get(name) or "")
                for one in changes[id_]
                for name in ("title", "content")
                if one.action == "edit"
            )
            had = terms(text)
            found = share(wanted, had.parts | had.wholes)
            if found >= LEAST_SHARE:
                shares[id_] = found
        if not shares:
            return
        for id_, one in self.many([*shares]).items():
            if id_ not in shown:
                now = terms(f"{one.title} {one.content}")
                had_now = share(wanted, now.parts | now.wholes)
                if had_now >= LEAST_SHARE:
                    yield applied(one, ()), had_now

    def _current(
        self,
        items: list[Item],
        relevance: dict[str, tuple[float, float]],
        as_of_ns: int | None,
        changes: dict[str, list[Revision]],
    ) -> list[Item]:
        """The items with those that took the place of some of them, each as relevant as that."""
        items = superseded(self.lake, items, as_of_ns, hidden_ids(changes))
        here = {one.id: one for one in items}
        missing = {
            one.superseded_by: one.id
            for one in items
            if one.superseded_by is not None and one.superseded_by not in here
        }
        if missing:
            for id_, one in self.many(list(missing), as_of_ns=as_of_ns).items():
                if any(equal(one, other) for other in items if other.superseded_by is None):
                    continue
                relevance[id_] = relevance[missing[id_]]
                items.append(one)
        for one in items:  # who took the place is at least as relevant as whose place it took
            by = one.superseded_by
            if by in relevance and by != one.id:
                relevance[by] = max(relevance[by], relevance[one.id], key=sum)
        return items


def _scored(one: Item, relevance: tuple[float, float], now_ns: int, answer: Answer | None) -> Item:
    parts = ranking.parts(one, now_ns)
    if one.pinned:
        parts = parts._replace(importance=1.0)
    score = sum(relevance) * parts.factor
    if one.superseded_by is not None:
        score *= ranking.SUPERSEDED
    score = round(min(1.0, score), 4)
    if answer is None:
        return changed(one, score=score)
    matched = next((hit.matched for hit in answer.hits if hit.id == one.id), ())
    why = {
        "relevance": round(sum(relevance), 4), "text": round(relevance[0], 4),
        "vector": round(relevance[1], 4), "matched": list(matched),
        "recency": round(parts.recency, 4), "importance": round(parts.importance, 4),
        "outcome": round(parts.outcome, 4), "factor": round(parts.factor, 4),
    }  # fmt: skip
    if one.superseded_by is not None:
        why["superseded"] = ranking.SUPERSEDED
    return changed(one, score=score, why=why)


def _texts(scope: Scope, types: Sequence[str]) -> dict[str, Sequence[str]]:
    """What columns must be, for `LakeReader.newest`."""
    given = {
        "user_id": scope.user_id, "session_id": scope.session_id, "service_name": scope.service,
    }  # fmt: skip
    only: dict[str, Sequence[str]] = {
        column: [value] for column, value in given.items() if value is not None
    }
    return only | {"type": types} if types else only


def _where(scope: Scope, types: Sequence[str], tags: Sequence[str]) -> tuple[list[str], list[Any]]:
    where, values = list[str](), list[Any]()
    for column, value in (
        ("user_id", scope.user_id), ("session_id", scope.session_id),
        ("service_name", scope.service),
    ):  # fmt: skip
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if types:
        where.append(f"type IN ({', '.join('?' * len(types))})")
        values += types
    if tags:
        where.append("list_has_all(tags, ?)")
        values.append(list(tags))
    return where, values


def _passes(
    one: Item,
    scope: Scope,
    types: Sequence[str],
    tags: Sequence[str],
    since_ns: int | None,
    until_ns: int | None,
    min_importance: float | None,
    now_ns: int,
) -> bool:
    at = one.time_unix_nano or 0
    return (
        scope.user_id in (None, one.user_id)
        and scope.session_id in (None, one.session_id)
        and scope.service in (None, one.service)
        and (not types or one.memory_type in types)
        and set(tags) <= set(one.tags)
        and (since_ns is None or at >= since_ns)
        and (until_ns is None or at < until_ns)
        and (min_importance is None or one.importance >= min_importance)
        and valid(one, now_ns)
    )


def hidden_ids(changes: dict[str, list[Revision]]) -> list[str]:
    """The memories that are hidden by their changes."""
    hidden = []
    for id_, some in changes.items():
        last = next((one.action for one in reversed(some)
                     if one.action in ("hide", "show", "restore")), "show")  # fmt: skip
        if last == "hide":
            hidden.append(id_)
    return sorted(hidden)


def limit_of(limit: int) -> int:
    """A limit that can be asked for.

    Raises:
        BadRequest: it makes no sense.
    """
    if not 1 <= limit <= MOST:
        raise BadRequest(f"limit must be from 1 to {MOST}, not {limit}")
    return limit


def _cursor(at: int, id_: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([at, id_]).encode()).decode().rstrip("=")


def _uncursor(cursor: str) -> tuple[int, str]:
    try:
        at, id_ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(at), str(id_)
    except (ValueError, TypeError) as error:
        raise BadRequest("this cursor is none that was given out here") from error


__all__ = ["MOST", "Recall", "hidden_ids", "limit_of", "together"]
