"""What the lake says of the memories that were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engram.exporters.embedding.masking import PLACEHOLDER
from engram.exporters.errors import NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import listed, template_id
from engram.exporters.index_read import Filter, Match, hundredths

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from engram.exporters.lake.lookup import Lookup

_COLUMNS: Final = ("id", "type", "time_unix_nano", "title", "content", "service_name", "source",
                   "trust")  # fmt: skip

_ASKED: Final = ("user_id", "session_id", "tags", "importance")
"""What a filter asks of a memory beyond `_COLUMNS`."""

_OF_A_TEMPLATE: Final = 20
"""The newest memories whose title looks like a template's, of which one must be of it."""


class MemoryRow(NamedTuple):
    """A memory as the lake has it."""

    id: str
    type: str
    time_unix_nano: int | None
    title: str | None
    content: str | None
    service: str | None
    source: str | None
    trust: str | None
    more: tuple[Any, ...] = ()
    """The other columns that were asked for."""


class LakeRows:
    """Reads memories from the lake. Constructing opens nothing. Not for several threads.

    `more` are columns that are read with the others. A `lookup` may be shared with other readers.
    """

    def __init__(self, home: Home, more: Sequence[str] = (), lookup: Lookup | None = None) -> None:
        self._home = home
        self._columns = (*_COLUMNS, *more)
        self._lake: duckdb.DuckDBPyConnection | None = None
        self._own = lookup is None
        self._lookup = lookup

    def rows(self, matches: Sequence[Match], only: Filter) -> dict[str, MemoryRow]:
        """By the id of the match, the memory to show, if there is one that passes the filter.

        For a row of a template that is its oldest memory; where that one has left the lake or the
        filter is about more than type and service, the newest memory of the template that passes.
        """
        if not matches:
            return {}
        shared = [match for match in matches if match.template is not None]
        direct = [match for match in matches if match.template is None or not only.asks_lake]
        told = self._by_id(direct, only)
        found = {match.id: told[match.memory_id] for match in direct if match.memory_id in told}
        return found | self._of_templates([one for one in shared if one.id not in found], only)

    def close(self) -> None:
        """Let go of the lake. Safe twice."""
        if self._own and self._lookup is not None:
            self._lookup.close()
        self._disconnect()

    def _disconnect(self) -> None:
        lake, self._lake = self._lake, None
        if lake is not None:
            lake.close()

    def _by_id(self, matches: Sequence[Match], only: Filter) -> dict[str, MemoryRow]:
        """Memories by id, those that pass: the lake may have changed since they were indexed.

        They are looked up where they were. A memory whose time was changed by a merge is looked
        for again: ids are hashes, so looking for them alone reads every file.
        """
        ids = [match.memory_id for match in matches]
        times = [match.time_unix_nano for match in matches if match.time_unix_nano is not None]
        there = self._looked_up(ids, times)
        rows = {id_: row for id_, (row, asked) in there.items() if _passes(row, asked, only)}
        if missing := [one for one in ids if one not in there]:
            passes, values = _condition(only)
            rows |= self._select(f"id IN ({listed(missing)}){passes}", values)
        return rows

    def at_hand(self, ids: Sequence[str], times: Sequence[int]) -> dict[str, MemoryRow]:
        """Memories by id, of which the times are known; those that cost no reading."""
        return {id_: row for id_, (row, _) in self._looked_up(ids, times, kept=True).items()}

    def _looked_up(
        self, ids: Sequence[str], times: Sequence[int], *, kept: bool = False
    ) -> dict[str, tuple[MemoryRow, tuple[Any, ...]]]:
        """Memories by id, of which the times are known, with the columns `_ASKED`."""
        try:
            found = self._lookups().rows(ids, times, (*self._columns, *_ASKED), kept=kept)
        except OSError:  # SQL says what is wrong with the lake, if anything
            return {}
        end = len(self._columns)
        return {
            id_: (MemoryRow(*row[:8])._replace(more=row[8:end]), row[end:])
            for id_, row in found.items()
        }

    def _lookups(self) -> Lookup:
        if self._lookup is None:
            from engram.exporters.lake.lookup import FILES, Lookup, signature

            self._lookup = Lookup(lambda: self._ask(FILES, []), lambda: signature(self._home))
        return self._lookup

    def _select(self, where: str, values: list[Any]) -> dict[str, MemoryRow]:
        columns = ", ".join(self._columns)
        found = self._ask(f"SELECT {columns} FROM memories WHERE {where}", values)
        return {row[0]: MemoryRow(*row[:8])._replace(more=row[8:]) for row in found}

    def at(self, ids: Sequence[str], times: Sequence[int]) -> dict[str, MemoryRow]:
        """Memories by id, of which the times are known; those that are there."""
        rows = {id_: row for id_, (row, _) in self._looked_up(ids, times).items()}
        if missing := [one for one in ids if one not in rows]:
            rows |= self._select(f"id IN ({listed(missing)})", [])
        return rows

    def there(self, id_: str, time_unix_nano: int) -> MemoryRow | None:
        """A memory, if it is where it was."""
        found = self._looked_up([id_], [time_unix_nano]).get(id_)
        return None if found is None else found[0]

    def moments(self, only: Filter, most: int) -> NDArray[np.int64] | None:
        """Sorted times of all memories that pass a filter and some more; None: too many do."""
        exactly: dict[str, Sequence[str]] = {
            name: value
            for name, value in (
                ("type", only.types),
                ("service_name", only.service and [only.service]),
                ("user_id", only.user_id and [only.user_id]),
                ("session_id", only.session_id and [only.session_id]),
            )
            if value is not None
        }  # fmt: skip
        try:
            return self._lookups().moments(
                only.tags or (), most=most, only=exactly, since_ns=only.since_ns or 0,
                until_ns=(1 << 62) if only.until_ns is None else only.until_ns,
            )  # fmt: skip
        except OSError:
            return None  # more candidates are looked at instead

    def _of_templates(self, matches: Sequence[Match], only: Filter) -> dict[str, MemoryRow]:
        """The newest memory of each template that passes the filter."""
        if not matches:
            return {}
        where, values = _condition(only)
        cases, of_case = [], list[Any]()
        for number, match in enumerate(matches):
            cases.append(
                "WHEN type = ? AND service_name IS NOT DISTINCT FROM ? "
                f"AND coalesce(title, '') LIKE ? ESCAPE '\\' THEN {number}"
            )
            of_case += [match.type, match.service, _pattern(match.template or "")]
        looked = self._ask(
            "SELECT id, type, service_name, title, time_unix_nano FROM ("
            f"SELECT *, CASE {' '.join(cases)} END AS number FROM memories "
            f"WHERE index_as = 'template'{where}) WHERE number IS NOT NULL "
            "QUALIFY row_number() OVER (PARTITION BY number ORDER BY time_unix_nano DESC, id) <= ? "
            "ORDER BY time_unix_nano DESC, id",
            [*of_case, *values, _OF_A_TEMPLATE],
        )
        newest: dict[str, Match] = {}
        for id_, type_, service, title, time_ns in looked:
            template = template_id(type_, service, title)[0]
            newest.setdefault(template, Match(template, id_, time_ns, 0.0, 0.0))
        chosen = [newest[match.id] for match in matches if match.id in newest]
        told = self._by_id(chosen, only) if chosen else {}
        return {one.id: told[one.memory_id] for one in chosen if one.memory_id in told}

    def _ask(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        import duckdb

        from engram.exporters.lake.attach import attach_read_only

        for last in (False, True):
            try:
                if self._lake is None:
                    self._lake = attach_read_only(self._home, threads=2, memory_limit="160MB")
                    # A footer has an entry for each column of each row group.
                    self._lake.execute("SET parquet_metadata_cache = true")
                return self._lake.execute(sql, values).fetchall()
            except duckdb.CatalogException as error:
                self._disconnect()
                raise NotFound(f"the lake in {self._home.lake} has no memories yet") from error
            except duckdb.Error as error:
                self._disconnect()
                if last:
                    raise StoreError(
                        f"cannot read the lake in {self._home.lake}: {error}"
                    ) from error
        raise AssertionError


def _condition(only: Filter) -> tuple[str, list[Any]]:
    """What a filter asks of the lake, as ` AND ...` with its values."""
    asked = [
        ("type IN (SELECT unnest(?::VARCHAR[]))", None if only.types is None else list(only.types)),
        ("service_name = ?", only.service),
        ("user_id = ?", only.user_id),
        ("session_id = ?", only.session_id),
        ("time_unix_nano >= ?", only.since_ns),
        ("time_unix_nano < ?", only.until_ns),
        ("list_has_all(tags, ?)", None if only.tags is None else list(only.tags)),
        # As the index rounds it.
        ("round(coalesce(importance, 0) * 100) >= round(? * 100)", only.min_importance),
    ]
    given = [(sql, value) for sql, value in asked if value is not None]
    return "".join(f" AND {sql}" for sql, _ in given), [value for _, value in given]


def _pattern(template: str) -> str:
    """A LIKE pattern for the titles that may be of a template; `mask` says which are."""
    pieces = PLACEHOLDER.split(template)
    escaped = [
        piece.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace(" ", "%")
        for piece in pieces
    ]
    return "%".join(escaped) + "%"


def _passes(row: MemoryRow, asked: tuple[Any, ...], only: Filter) -> bool:
    """Whether a memory passes a filter, as `_condition` says it in SQL."""
    user, session, tags, importance = asked
    at = row.time_unix_nano
    return (
        (only.types is None or row.type in only.types)
        and only.service in (None, row.service)
        and only.user_id in (None, user)
        and only.session_id in (None, session)
        and (only.since_ns is None or (at is not None and at >= only.since_ns))
        and (only.until_ns is None or (at is not None and at < only.until_ns))
        and (only.tags is None or {*only.tags} <= {*(tags or ())})
        and (
            only.min_importance is None or hundredths(importance) >= hundredths(only.min_importance)
        )
    )
