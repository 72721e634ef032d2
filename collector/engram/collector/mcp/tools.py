"""What an agent can do. Each method is one tool: its docstring is what the agent reads of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from engram.collector.access import Principal
from engram.collector.find import moment
from engram.collector.mcp import comparing, errors, traces
from engram.collector.mcp.caller import CALLER, whole, within, writer
from engram.collector.mcp.links import base_url, target
from engram.collector.mcp.reader import Reader
from engram.collector.mcp.text import MOST_TOKENS, fitting, pairs, recalled, table, value
from engram.collector.rest.writing import (
    ENRICHMENT,
    REVISION,
    Event,
    Writer,
    outcome_of,
    own_source,
)
from engram.collector.sandbox import Sandbox
from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.home import Home
from engram.learning.recall import Item, Recall, Scope
from engram.learning.recall.fence import clean
from engram.learning.recall.fence import lines as item_lines

_CONTENT: Final = 500
"""Characters of an item's content in a list; `get` has it all."""

_LOOKED_AT: Final = 50
"""Hits that a search counts and pages through."""

_CONTEXT: Final = 5_000
"""Tokens of a context window."""

_SCOPE: Final = {
    "service": "service", "user": "user_id", "user_id": "user_id", "session": "session_id",
    "session_id": "session_id",
}  # fmt: skip

ScopeText = Annotated[str, Field(description="service=, user=, session=; e.g. service=shop")]
Since = Annotated[str, Field(description="2h, 7d or ISO time")]


class Tools:
    """The tools of one home. Constructing opens nothing."""

    def __init__(self, home: Home, *, recall: Recall, sandbox: Sandbox) -> None:
        self.home = home
        self.recalling = recall
        self.sandbox = sandbox
        self.reader = Reader(home)
        self._writer = Writer(home)

    def close(self) -> None:
        """Let go of the lake. Safe twice."""
        self.reader.close()

    # -- asking ------------------------------------------------------------------------------------

    def recall(
        self,
        query: Annotated[str, Field(description="What to know, in words")],
        scope: ScopeText = "",
        types: Annotated[
            list[str] | None,
            Field(description="e.g. system_error, error_solution, business_decision, ai_insight"),
        ] = None,
        since: Since = "",
        as_of: Annotated[str, Field(description="As it was known at this time")] = "",
        limit: int = 8,
        max_tokens: int = 2000,
        cursor: str = "",
    ) -> str:
        """Search everything remembered, and say so when nothing is relevant.

        Errors, solutions, decisions, requests, conversations, insights.
        """
        at = _offset(cursor)
        if not 1 <= limit <= _LOOKED_AT:
            raise BadRequest(f"limit must be from 1 to {_LOOKED_AT}")
        found = self.recalling.search(
            query, scope=self._scope(scope), types=types or (), limit=_LOOKED_AT,
            since_ns=moment(since) if since else None, as_of_ns=moment(as_of) if as_of else None,
        )  # fmt: skip
        if not found.items:
            return f"Nothing relevant is remembered. {found.note}".strip()
        more = "+" if len(found.items) == _LOOKED_AT else ""
        return self._list(
            found.items[at : at + limit], at, f"{len(found.items)}{more}", max_tokens, found.note
        )

    def get(
        self,
        id: Annotated[
            str, Field(description="Id of a memory or trace, fingerprint of an error, date, or URL")
        ],
        detail: Literal["summary", "full"] = "summary",
    ) -> str:
        """One memory, trace (as a skeleton), error pattern, or report of a day.

        Say full for all of its text, and for more of a trace.
        """
        wanted = target(id)
        if wanted.kind == "trace":
            return self.trace(wanted.id, full=detail == "full")
        if wanted.kind == "error":
            return self.error(wanted.id)
        if wanted.kind == "report":
            return self.report(wanted.id)
        return self.memory(wanted.id, full=detail == "full")

    def find_known_error(
        self,
        error: Annotated[str, Field(description="Stack trace or message")] = "",
        file: Annotated[str, Field(description="Or: errors of this source file")] = "",
        scope: ScopeText = "",
    ) -> str:
        """Whether an error was seen before, how often, since when, and which solutions worked.

        Ask this before debugging.
        """
        if not error and not file:
            raise BadRequest("give the error's text or a file")
        return recalled(
            errors.known_error(
                self.recalling, self.reader, error or None, file or None, self._scope(scope)
            )
        )

    def ask_decision(
        self,
        context: Annotated[str, Field(description="What is to be decided")],
        options: list[str] | None = None,
        scope: ScopeText = "",
    ) -> str:
        """How similar past decisions turned out: success rate per option with n and interval."""
        told = self.recalling.decision_history(context, options or (), scope=self._scope(scope))
        if not told.similar:
            return f"No similar decision is remembered. {told.note}".strip()
        lines = ["option\tchosen\tworked\tof\trate\t95 %"]
        for one in told.options:
            rate = one.success
            lines.append(
                f"{value(one.option, 80)}\t{one.chosen}\t{rate.worked}\t{rate.n}\t"
                + ("?" if rate.rate is None else f"{rate.rate:.0%}")
                + f"\t{rate.low:.0%} to {rate.high:.0%}"
            )
        lines.append(
            f"overall {told.overall.worked} of {told.overall.n} worked; "
            f"{told.without_outcome} without a known outcome; "
            f"{len(told.due)} of them due: record_outcome"
        )
        lines.append("## Similar decisions")
        for item in told.similar[:8]:
            lines += self._item(item, 250)
        return recalled(lines, 3000)

    def compare(
        self,
        target: Annotated[
            str, Field(description="The odd spans: status=error, service=shop, since=1h, ms>=500")
        ],
        baseline: Annotated[
            str, Field(description="The others: status=ok, since=1d, until=1h, any attribute=value")
        ],
        group_by: Annotated[str, Field(description="Only this attribute")] = "",
    ) -> str:
        """What differs between two sets of spans.

        Tells which attribute=value is more or less common in the target.
        """
        whole("compare")
        return recalled(comparing.compare(self.reader, baseline, target, group_by or None), 3000)

    def query_sql(
        self,
        sql: Annotated[
            str,
            Field(
                description="One DuckDB SELECT over spans, logs, metrics, memories and a view "
                "for each memory type; DESCRIBE spans tells columns. Resource memory://schema"
            ),
        ],
        max_rows: int = 50,
    ) -> str:
        """Count, group, join all telemetry by SQL. Read-only, at most 10 s."""  # fmt: skip
        whole("query_sql")
        found = self.sandbox.run(sql, max_rows=max_rows)
        if not found.rows:
            return f"No rows. Columns: {', '.join(found.columns)}"
        head, *rows = table(found.columns, found.rows)
        kept, _ = fitting(rows, MOST_TOKENS - 400)
        more = "" if len(kept) == len(rows) and not found.truncated else (
            f"{len(kept)} rows shown, there are more: aggregate, or use LIMIT and OFFSET"
        )  # fmt: skip
        return recalled([head, *kept, *([more] if more else [])])

    def whats_new(self, since: Since = "24h", scope: ScopeText = "") -> str:
        """What was learned lately: insights, new and frequent errors, what is predicted."""
        whose, at = self._scope(scope), moment(since)
        hours = max(0.1, (datetime.now(UTC).timestamp() - at / 1e9) / 3600)
        lines = ["## Learned"]
        page = self.recalling.recent(
            scope=whose, types=["ai_insight", "optimization"], hours=hours, limit=15
        )
        for one in sorted(page.items, key=lambda item: -item.importance):
            lines += self._item(one, 200)
        if not page.items:
            lines.append("nothing new")
        rows = self.reader.ask(
            "SELECT fingerprint, arg_max(title, time_unix_nano), "
            "count(*) FILTER (time_unix_nano >= ?) AS lately, min(time_unix_nano) >= ? AS new, "
            "arg_max(service_name, time_unix_nano) FROM lake.memories "
            "WHERE type = 'system_error' AND (? IS NULL OR service_name = ?) "
            "GROUP BY fingerprint HAVING lately > 0 ORDER BY new DESC, lately DESC LIMIT 15",
            [at, at, whose.service, whose.service],
        )
        lines.append("## Errors (new first)")
        for fingerprint, title, count, new, service in rows:
            mark = "NEW " if new else ""
            lines.append(
                f"- {mark}x{count:,} {value(service)}: {value(title, 160)} "
                f"(memory://error/{fingerprint})"
            )
        if not rows:
            lines.append("none")
        return recalled(lines, 4000)

    # -- telling -----------------------------------------------------------------------------------

    def remember(
        self,
        text: Annotated[str, Field(description="The fact, self-contained; first line is a title")],
        type: Annotated[
            str, Field(description="ai_insight, error_solution, business_decision or another")
        ] = "ai_insight",
        scope: ScopeText = "",
        links: Annotated[
            list[str] | None, Field(description="Ids it is about: error, trace, memory")
        ] = None,
        tags: list[str] | None = None,
    ) -> str:
        """Remember a finding, a fix or a decision for later agents. Twice the same is once."""
        caller, whose = writer(), self._scope(scope)
        if not text.strip():
            raise BadRequest("there is nothing to remember")
        if not type.replace("_", "").isalnum() or type in (REVISION, ENRICHMENT):
            raise BadRequest(f"{type!r} is no type of memory; letters, digits and _ name one")
        # Of the fact and its scope, so that writing twice is harmless.
        key = json.dumps(["mcp", type, whose.given, text.strip()], ensure_ascii=False)
        return self._write(
            Event(
                type, text.strip().splitlines()[0][:200], content=text.strip(), tags=tags or (),
                source=own_source(key, caller), service=whose.service, user_id=whose.user_id,
                session_id=whose.session_id, payload={"links": links} if links else None,
            ),
            caller, f"remembered as {type}",
        )  # fmt: skip

    def record_outcome(
        self,
        target_id: Annotated[str, Field(description="Id of a solution or decision")],
        success: bool,
        outcome: Annotated[str, Field(description="What happened, in a few words")] = "",
        notes: str = "",
    ) -> str:
        """Say how a solution or decision turned out. Success rates are made of this."""
        caller = writer()
        of = self._seen(target_id)
        event = outcome_of(
            of, outcome or ("success" if success else "failure"), caller, success=success,
            notes=notes or None,
        )  # fmt: skip
        told = f"recorded for {of.id} ({of.memory_type})"
        return self._write(event, caller, told)

    def _write(self, event: Event, caller: Principal, told: str) -> str:
        written = self._writer.write(event, caller, wait=True)
        late = "" if written.committed else ", stored, and to be found within seconds"
        return f"{told}, id={written.id}, url={self._url(written.id)}{late}"

    # -- one thing, also as resources --------------------------------------------------------------

    def memory(self, id_: str, *, full: bool = False) -> str:
        """One memory, its changes and what belongs to it."""
        item = self._seen(id_)
        lines = self._item(item, 12_000 if full else 2_000)
        if item.meta_data:
            lines.append("## Fields")
            lines += [
                f"{value(name, 80)}: {value(of, 1200 if full else 300)}"
                for name, of in list(item.meta_data.items())[:40]
            ]
        history = self.recalling.history(item.id)
        if len(history) > 1:
            lines.append(f"## History: {len(history)} versions, the newest is shown")
        if item.trace_id:
            lines.append(f"## Same trace (memory://trace/{item.trace_id})")
            for time, type_, title, other in self.reader.ask(
                "SELECT time_unix_nano, type, title, id FROM lake.memories WHERE trace_id = ? "
                "AND id <> ? AND time_unix_nano BETWEEN ? AND ? "
                "AND (? IS NULL OR service_name = ?) ORDER BY time_unix_nano LIMIT ?",
                [item.trace_id, item.id, (item.time_unix_nano or 0) - 3_600_000_000_000,
                 (item.time_unix_nano or 0) + 3_600_000_000_000, CALLER.get().service,
                 CALLER.get().service, 30 if full else 10],
            ):  # fmt: skip
                at = datetime.fromtimestamp(time / 1e9, UTC)
                lines.append(f"{at:%H:%M:%S.%f} {type_}: {value(title, 140)} (id={other})")
        return recalled(lines)

    def trace(self, trace_id: str, *, full: bool = False) -> str:
        """One trace: numbers, then the skeleton."""
        whole("a trace")
        return recalled(traces.trace(self.reader, trace_id.lower(), full=full), 5_000)

    def error(self, fingerprint: str) -> str:
        """One pattern of failures, with its solutions."""
        return recalled(errors.error(self.recalling, self.reader, fingerprint, self._scope("")))

    def context(self, scope: str) -> str:
        """What to know before the next step of a session, a user or a service."""
        whose = self._scope(scope)
        if not whose.given:
            raise BadRequest("say whose: session=..., user=... or service=...")
        return self.recalling.context_window(scope=whose, max_tokens=_CONTEXT).text

    def report(self, date: str) -> str:
        """The learnings of a day (UTC)."""
        from engram.collector.report import report
        from engram.learning.report import markdown

        whole("a report")
        told = markdown(report(self.home, date), base_url(self.home))
        return recalled([clean(line) for line in told.splitlines() if line.strip()])

    # -- parts -------------------------------------------------------------------------------------

    def _scope(self, text: str) -> Scope:
        given: dict[str, Any] = {}
        for name, sign, told in pairs(text):
            if name not in _SCOPE or sign != "=":
                raise BadRequest(f"a scope has service=, user= and session=, not {name}{sign}")
            given[_SCOPE[name]] = told
        return within(Scope(**given))

    def _seen(self, id_: str) -> Item:
        """A memory that the caller may see, by its id or the first digits of it."""
        wanted = target(id_).id
        if len(wanted) < 24:
            rows = self.reader.ask(
                "SELECT DISTINCT id FROM lake.memories WHERE starts_with(id, ?) LIMIT 2", [wanted]
            )
            if len(rows) != 1:
                raise NotFound(f"{len(rows) or 'no'} memories begin with {wanted}; give the whole")
            wanted = rows[0][0]
        item = self.recalling.get(wanted)
        if item.hidden or CALLER.get().service not in (None, item.service):
            raise NotFound(f"there is no memory {wanted}")
        return item

    def _url(self, id_: str) -> str:
        return f"{base_url(self.home)}/api/memories/{id_}"

    def _item(self, one: Item, most: int) -> list[str]:
        *told, facts = item_lines(one, most=most)
        score = "" if one.score is None else f", score={one.score:.2f}"
        return [*told, f"{facts}{score}, url={self._url(one.id)}"]

    def _list(self, items: Sequence[Item], at: int, total: str, max_tokens: int, note: str) -> str:
        most = min(max(max_tokens, 300), MOST_TOKENS) - 200
        lines: list[str] = []
        shown = 0
        for one in items:
            told = self._item(one, _CONTENT)
            kept, out = fitting([*lines, *told], most)
            if out and shown:
                break
            lines, shown = kept, shown + 1
        last = at + shown
        more = "" if f"{last}" == total else f", cursor={last}"
        lines.append(f"{shown} of {total} shown{more}")
        if note:
            lines.append(note)
        return recalled(lines)


def _offset(cursor: str) -> int:
    if not cursor:
        return 0
    if not cursor.isdigit() or int(cursor[:6]) >= _LOOKED_AT:
        raise BadRequest("this cursor is none that was given out here")
    return int(cursor)


__all__ = ["Tools"]
