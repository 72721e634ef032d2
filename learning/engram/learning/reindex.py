"""`engram reindex`: the index built again from the lake, beside the one that is searched.

Searches go on in the old table until the new one holds all of the lake; then one file is replaced
and they go on in the new one. A kill at any moment leaves the old one, and what was half built is
removed by the next rebuild.

Only one process may write the index, the one that holds `learn.lock`. While `learn` runs, that is
`learn`: it is asked by a file in the home, builds page by page between its own work, and says in
another file how far it is. Otherwise `engram reindex` does it itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from engram.exporters.embedding.models import BUILTIN, canonical, load
from engram.exporters.errors import EngramError, HomeBusy, NotFound, StoreError
from engram.exporters.home import Home
from engram.exporters.index import current_table, next_table, read_state, switch, table_dir
from engram.learning.indexer import Indexer

_LOG = logging.getLogger("engram.learn")

LOCK_FILE: Final = "learn.lock"
REQUEST_FILE: Final = "reindex.json"
PROGRESS_FILE: Final = "reindex-progress.json"

_POLL_S: Final = 0.3
_SAY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is."""

    state: str
    """`building`, `done` or `failed`."""
    model: str
    read: int
    """Memories indexed so far."""
    total: int
    """Memories to index when it began."""
    error: str = ""
    request: str = ""


@contextlib.contextmanager
def only_writer(home: Home) -> Iterator[None]:
    """Hold the right to write a home's index.

    Raises:
        HomeBusy: another process has it.
        StoreError: the home cannot be written.
    """
    try:
        descriptor = os.open(home.root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise NotFound(f"no home in {home.root}; start one with: engram up") from error
    except OSError as error:
        raise StoreError(f"cannot write to the home {home.root}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HomeBusy(f"another process keeps the index of {home.root}") from error
        yield
    finally:
        os.close(descriptor)


class Rebuild:
    """A new table, filled from the lake. The caller MUST be the only writer of the index."""

    def __init__(self, home: Home, model: str | None = None, *, request: str = "") -> None:
        """Begin; the model is loaded here.

        Raises:
            ModelUnavailable: the model cannot be loaded; the index stays as it is.
        """
        self._home = home
        self._request = request
        state = read_state(home) or {}
        self._model = canonical(model or str(state.get("model", BUILTIN)))
        if model:
            load(self._model, download=True)
        self._table = next_table(home)
        self._indexer = Indexer(home, model=self._model, table=self._table)
        self._total = _to_index(home)
        self._ended = False

    def step(self) -> Progress:
        """Index one page; when there is no more, switch to the new table."""
        if not self._ended:
            before = self._indexer.read
            self._indexer.step()
            if self._indexer.read == before:
                self._indexer.close()
                if not table_dir(self._home, self._table).exists():
                    raise StoreError(f"there is nothing to index in {self._home.lake} yet")
                switch(self._home, self._table)
                self._ended = True
        return self._progress("done" if self._ended else "building")

    def failed(self, error: EngramError) -> Progress:
        """What to say when a step raised."""
        return self._progress("failed", str(error))

    def _progress(self, state: str, error: str = "") -> Progress:
        read = self._indexer.read
        return Progress(state, self._model, read, max(self._total, read), error, self._request)


def reindex(
    home: Home, model: str | None, say: Callable[[Progress], None], *, here: bool | None = None
) -> Progress:
    """Rebuild the index, by `learn` when it runs, and say how far it is. Returns when it is done.

    Raises:
        EngramError: it failed; the old index is searched as before.
    """
    if not home.catalog.exists():
        raise NotFound(f"no lake in {home.root}; start one with: engram up --home {home.root}")
    name = canonical(model) if model else None
    request = ""
    while True:
        try:
            with only_writer(home):
                _withdraw(home)
                return _here(home, name, say)
        except HomeBusy:
            if not request:
                request = _ask(home, name)
            progress = _wait(home, request, say)
            if progress is not None:
                return progress


def _here(home: Home, model: str | None, say: Callable[[Progress], None]) -> Progress:
    rebuild = Rebuild(home, model)
    while True:
        progress = rebuild.step()
        say(progress)
        if progress.state != "building":
            return progress


def _ask(home: Home, model: str | None) -> str:
    request = uuid.uuid4().hex
    _write(home, REQUEST_FILE, {"request": request, "model": model})
    return request


def _withdraw(home: Home) -> None:
    """What was asked of a `learn` that is gone is not asked again."""
    (home.root / REQUEST_FILE).unlink(missing_ok=True)


def _wait(home: Home, request: str, say: Callable[[Progress], None]) -> Progress | None:
    """The end of what was asked; None when `learn` is gone and it must be done here."""
    said: Progress | None = None
    while True:
        told = _read(home, PROGRESS_FILE)
        if told.get("request") == request:
            progress = Progress(**told)
            if progress != said:
                say(progress)
                said = progress
            if progress.state == "failed":
                raise StoreError(progress.error)
            if progress.state == "done":
                return progress
        with contextlib.suppress(HomeBusy), only_writer(home):
            return None
        time.sleep(_POLL_S)


class Requests:
    """What `learn` does about `engram reindex`, between its own steps."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._rebuild: Rebuild | None = None
        self._said = 0.0

    def step(self) -> bool:
        """Begin or go on with what was asked for; whether there is more to do."""
        if self._rebuild is None:
            asked = _read(self._home, REQUEST_FILE)
            if not asked:
                return False
            return self._begin(str(asked.get("request", "")), asked.get("model"))
        try:
            progress = self._rebuild.step()
        except EngramError as error:
            progress = self._rebuild.failed(error)
        if progress.state != "building" or time.monotonic() - self._said > _SAY_S:
            self._say(progress)
        return self._rebuild is not None

    def _begin(self, request: str, model: str | None) -> bool:
        _LOG.info("rebuilding the index of %s", self._home.root)
        try:
            self._rebuild = Rebuild(self._home, model, request=request)
        except EngramError as error:
            self._say(Progress("failed", model or "", 0, 0, str(error), request))
        return self._rebuild is not None

    def _say(self, progress: Progress) -> None:
        self._said = time.monotonic()
        _write(self._home, PROGRESS_FILE, asdict(progress))
        if progress.state == "building":
            return
        self._rebuild = None
        _withdraw(self._home)
        if progress.state == "done":
            _LOG.info("the index was rebuilt with the model %s", progress.model)
        else:
            _LOG.warning("the index was not rebuilt: %s", progress.error)


def _to_index(home: Home) -> int:
    """Memories in the lake that have a place in the index."""
    import duckdb

    from engram.exporters.lake.attach import attach_read_only

    try:
        with contextlib.closing(attach_read_only(home, threads=1, memory_limit="160MB")) as lake:
            row = lake.execute(
                "SELECT count(*) FROM memories "
                "WHERE id IS NOT NULL AND index_as IS DISTINCT FROM 'none'"
            ).fetchone()
    except duckdb.CatalogException as error:
        raise StoreError(f"the lake in {home.lake} has no memories yet") from error
    except duckdb.Error as error:
        raise StoreError(f"cannot read the lake in {home.lake}: {error}") from error
    return int(row[0]) if row else 0


def _write(home: Home, name: str, content: dict[str, Any]) -> None:
    path = home.root / name
    fresh = path.with_name(f".{name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(content))
        fresh.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _read(home: Home, name: str) -> dict[str, Any]:
    try:
        told = json.loads((home.root / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return dict(told) if isinstance(told, dict) else {}


__all__ = ["Progress", "Rebuild", "Requests", "current_table", "only_writer", "reindex"]
