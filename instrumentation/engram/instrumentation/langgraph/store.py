"""A `BaseStore` whose items are memories: each is one memory, each put a change of it.

Like all memory nothing is overwritten: `put` and `delete` are revisions, which the history has.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from engram.instrumentation.api.asking import BUDGET_S
from engram.instrumentation.api.marks import identity, source_key
from engram.instrumentation.client.http import RecallError, RecallRefused
from engram.instrumentation.client.items import Memory
from engram.instrumentation.client.synchronous import Client
from engram.instrumentation.langgraph.matching import compare, matches

_LOG: Final = logging.getLogger("engram.instrumentation")

TYPE: Final = "langgraph_item"
_MOST: Final = 10_000
"""Items that a search without a query, or a list of namespaces, looks at: newest first."""
_PAGE: Final = 200


class Store(BaseStore):
    """Give it to `graph.compile(store=Store())`. Reads wait 150 ms, writes until they are read.

    Where memory does not answer, reads are empty, writes are lost, and the log says so once, unless
    `on_error="raise"`. `name` keeps stores apart that share a home. There is no TTL.
    """

    __slots__ = ("_client", "_name", "_raises", "_told")

    def __init__(
        self, *, name: str = "default", url: str | None = None, token: str | None = None,
        timeout_s: float = BUDGET_S, on_error: Literal["ignore", "raise"] = "ignore",
    ) -> None:  # fmt: skip
        self._client = Client(url, token, timeout_s=timeout_s)
        self._name = name
        self._raises = on_error == "raise"
        self._told = False

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """All reads, then the last put of each key, as the other stores do."""
        results: list[Result] = []
        puts: dict[tuple[tuple[str, ...], str], PutOp] = {}
        for op in ops:
            if isinstance(op, PutOp):
                puts[op.namespace, op.key] = op
                results.append(None)
            elif isinstance(op, GetOp):
                results.append(self._quietly(self._get, op, None))
            elif isinstance(op, SearchOp):
                results.append(self._quietly(self._search, op, []))
            elif isinstance(op, ListNamespacesOp):
                results.append(self._quietly(self._namespaces, op, []))
            else:
                raise ValueError(f"Unknown operation type: {type(op)}")
        for put in puts.values():
            self._quietly(self._put, put, None)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """`batch` in a thread: the event loop never waits for the network."""
        return await asyncio.to_thread(self.batch, list(ops))

    def close(self) -> None:
        """Let go of the connections. Safe twice; the next question makes new ones."""
        self._client.close()

    def _quietly(self, do: Any, op: Any, otherwise: Any) -> Any:
        try:
            return do(op)
        except RecallError as error:
            if self._raises:
                raise
            if not self._told:
                self._told = True
                _LOG.warning("engram: the store's memory does not answer: %s", error)
            return otherwise

    def _key(self, namespace: Sequence[str], key: str) -> str:
        return json.dumps([self._name, list(namespace), key])

    def _memory(self, namespace: tuple[str, ...], key: str) -> Memory | None:
        # The server keeps what agents name apart from what operators (admin tokens) name.
        own = self._key(namespace, key)
        for named in (f"agent\0{own}", own):
            try:
                return self._client.get_memory(identity(TYPE, source_key(named)))
            except RecallRefused as error:
                if error.status != 404:
                    raise
        return None

    def _get(self, op: GetOp) -> Item | None:
        one = self._memory(op.namespace, op.key)
        item = None if one is None else self._item(one)
        if item is None:
            return None
        return Item(
            value=item.value, key=item.key, namespace=item.namespace,
            created_at=item.created_at, updated_at=item.updated_at,
        )  # fmt: skip

    def _put(self, op: PutOp) -> None:
        before = self._memory(op.namespace, op.key)
        if before is None and op.value is None:
            return
        meta = {
            "store": self._name, "namespace": json.dumps(list(op.namespace)), "key": op.key,
            "indexed": op.index is not False, "deleted": op.value is None,
            "updated_at": datetime.datetime.now(datetime.UTC).isoformat(),
        }  # fmt: skip
        content = json.dumps(None if op.value is None else dict(op.value), ensure_ascii=False)
        if before is not None:
            self._client.update_memory(before.id, content=content, meta_data=meta)
            return
        self._client.create_memory(
            title="/".join((*op.namespace, op.key)), content=content, memory_type=TYPE,
            session_id=self._session(op.namespace), meta_data=meta,
            key=self._key(op.namespace, op.key), wait=True,
        )  # fmt: skip

    def _session(self, namespace: tuple[str, ...]) -> str | None:
        """What the server can filter by: the namespace's first label."""
        return f"store:{self._name}:{namespace[0]}" if namespace else None

    def _search(self, op: SearchOp) -> list[SearchItem]:
        prefix = op.namespace_prefix
        found = self._asked(op) if op.query else self._all(prefix)
        fitting = [
            one
            for one in found
            if one.namespace[: len(prefix)] == prefix
            and all(compare(one.value.get(key), of) for key, of in (op.filter or {}).items())
        ]
        return fitting[op.offset : op.offset + op.limit]

    def _asked(self, op: SearchOp) -> Iterator[SearchItem]:
        scope = {"session_id": self._session(op.namespace_prefix)} if op.namespace_prefix else {}
        said = self._client.http.ask(
            "POST", "/api/v1/search",
            {"query": op.query, "types": [TYPE], "scope": scope, "limit": _PAGE, "fold": False},
        )  # fmt: skip
        for one in map(Memory.read, said.get("items", ())):
            if one.meta_data.get("indexed") is not False and (item := self._item(one)) is not None:
                yield item

    def _all(self, prefix: tuple[str, ...]) -> list[SearchItem]:
        """Oldest first, which is the order of the other stores."""
        found: list[SearchItem] = []
        cursor: str | None = None
        for _ in range(_MOST // _PAGE):
            page = self._client.get_recent_memories(
                TYPE, hours=None, session_id=self._session(prefix), limit=_PAGE, cursor=cursor
            )
            found += [item for one in page if (item := self._item(one)) is not None]
            cursor = page.next
            if cursor is None:
                break
        return found[::-1]

    def _item(self, one: Memory) -> SearchItem | None:
        """None: deleted, of another store, or not written by one."""
        meta = one.meta_data
        try:
            value = json.loads(one.content)
            namespace = tuple(json.loads(meta["namespace"]))
            if meta["store"] != self._name or meta["deleted"] or not isinstance(value, dict):
                return None
            return SearchItem(
                namespace, meta["key"], value, one.created_at,
                datetime.datetime.fromisoformat(meta["updated_at"]), one.score,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            return None

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions: tuple[MatchCondition, ...] = op.match_conditions or ()
        found = {one.namespace for one in self._all(())}
        found = {one for one in found if all(matches(condition, one) for condition in conditions)}
        if op.max_depth is not None:
            found = {one[: op.max_depth] for one in found}
        return sorted(found)[op.offset : op.offset + op.limit]


__all__ = ["Store"]
