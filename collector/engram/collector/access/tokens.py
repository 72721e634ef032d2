"""Tokens: made once, shown once, kept as a hash, gone everywhere as soon as they are revoked.

`access/tokens.json` (0600) has what is known of each. A token is 32 random bytes, so one SHA-256
of it is enough: a slow hash with salt protects what people think up, and nobody finds 2^256 by
trying. When a token was used last is the time of a file of its own, so that processes which check
tokens never write where others do.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engram.collector.access.scopes import Scope, allow, ordered
from engram.exporters import files
from engram.exporters.errors import BadRequest, NotFound, StoreError
from engram.exporters.home import Home

PREFIX: Final = "engram_"
FOLDER: Final = "access"

_SAY_EVERY_S: Final = 60.0
"""`last used` is exact to this."""

_NAME: Final = re.compile(r"[\w.@:/-]{1,64}")
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the token itself is not."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created: float
    """Seconds since 1970, as the others."""

    hash: str
    expires: float | None = None
    service: str | None = None

    def live(self, now: float) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires

    def facts(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "id": self.id, "name": self.name, "scopes": ordered(self.scopes),
            "created": self.created, "expires": self.expires, "service": self.service,
            "hash": self.hash,
        }  # fmt: skip


class Vault:
    """The tokens of a home, for whoever makes and revokes them: the command line."""

    def __init__(self, home: Home, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = home.root / FOLDER
        self._home = home
        self._clock = clock

    def create(
        self,
        scopes: frozenset[Scope],
        *,
        name: str | None = None,
        expires_s: float | None = None,
        service: str | None = None,
    ) -> tuple[str, Token]:
        """Make a token: its text, which nobody can tell again, and what is known of it.

        Raises:
            BadRequest: the name is taken or is none, or the service makes no sense.
        """
        if service is not None and not scopes <= {Scope.READ, Scope.WRITE}:
            raise BadRequest(
                "--service goes with the scopes read and write only: whose telemetry a request of "
                "OTLP holds is not looked at before it is stored, and an admin has no limits"
            )
        secret = PREFIX + secrets.token_urlsafe(32)
        id_ = secrets.token_hex(4)
        name = name or f"token-{id_}"
        if not _NAME.fullmatch(name) or name == "local":
            raise BadRequest(f"{name!r} is no name for a token; letters, digits and . @ : / - _")
        now = self._clock()
        token = Token(
            id_, name, scopes, now, digest(secret),
            None if expires_s is None else now + expires_s, service,
        )  # fmt: skip
        with self._changing() as tokens:
            if any(one.name == name and one.live(now) for one in tokens):
                raise BadRequest(f"there is a token {name} already; revoke it, or choose a name")
            tokens.append(token)
        return secret, token

    def revoke(self, which: str) -> list[Token]:
        """Remove the tokens of this name or id.

        Raises:
            NotFound: there is none.
        """
        with self._changing() as tokens:
            gone = [one for one in tokens if which in (one.id, one.name)]
            if not gone:
                raise NotFound(f"there is no token {which}; engram token list shows them")
            tokens[:] = [one for one in tokens if one not in gone]
        for one in gone:
            with contextlib.suppress(OSError):
                _used(self._folder, one.id).unlink()
        return gone

    def listed(self) -> list[dict[str, Any]]:
        """What is known of every token, the newest last; never the hash."""
        found = []
        for one in read(self._folder / "tokens.json"):
            facts = one.facts()
            del facts["hash"]
            try:
                facts["last_used"] = _used(self._folder, one.id).stat().st_mtime
            except OSError:
                facts["last_used"] = None
            facts["expired"] = not one.live(self._clock())
            found.append(facts)
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        self._home.create()
        files.make_directory(self._folder, 0o700)
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self._folder / "tokens.json"
            tokens = read(path)
            yield tokens
            fresh = path.with_name(f".tokens.{os.getpid()}")
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "w") as out:
                json.dump({"tokens": [one.facts() for one in tokens]}, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(path)  # a new inode: whoever looks at the file sees that it changed
            files.sync_directory(self._folder)
        finally:
            os.close(lock)


class Tokens:
    """The tokens of a home as a running process checks them. Safe for several threads."""

    def __init__(self, home: Home, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = home.root / FOLDER
        self._path = self._folder / "tokens.json"
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: object = ()
        self._by_hash: dict[str, Token] = {}
        self._said: dict[str, float] = {}

    def find(self, secret: str) -> Token | None:
        """The token, unless it is unknown, revoked or expired; notes that it was used.

        The file is looked at each time (2 µs), so revoking works with the next request.
        """
        if not secret.startswith(PREFIX):
            return None
        # The dictionary is asked for a hash: what it takes tells nothing of the tokens.
        found = self._known().get(digest(secret))
        if found is None or not found.live(self._clock()):
            return None
        self._note(found)
        return found

    def any(self, scopes: Iterable[Scope]) -> bool:
        """Whether somebody could come with one of these scopes."""
        now, wanted = self._clock(), list(scopes)
        return any(
            one.live(now) and any(allow(one.scopes, scope) for scope in wanted)
            for one in self._known().values()
        )

    def _known(self) -> dict[str, Token]:
        try:
            stat = os.stat(self._path)
            seen: object = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError:
            seen = None
        with self._lock:
            if seen != self._seen:
                self._by_hash = {one.hash: one for one in read(self._path)}
                self._seen = seen
            return self._by_hash

    def _note(self, token: Token) -> None:
        now = self._clock()
        if now - self._said.get(token.id, 0.0) < _SAY_EVERY_S:
            return
        self._said[token.id] = now
        with contextlib.suppress(OSError):  # a home that we may only read
            path = _used(self._folder, token.id)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.touch(0o600)
            os.utime(path, (now, now))


def digest(secret: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def lifetime(text: str) -> float:
    """`30d`, `12h`, `90m` or `4w` in seconds.

    Raises:
        BadRequest: it is none of these.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if found is None:
        raise BadRequest(f"{text!r} is no duration; write 90m, 12h, 30d or 4w")
    return float(int(found[1]) * _UNITS[found[2]])


def read(path: Path) -> list[Token]:
    """The tokens in a file; none when there is no file.

    Raises:
        StoreError: it cannot be read. Nobody is let in then.
    """
    try:
        raw = json.loads(path.read_text())
        return [
            Token(
                str(one["id"]), str(one["name"]), frozenset(map(Scope, one["scopes"])),
                float(one["created"]), str(one["hash"]),
                None if one.get("expires") is None else float(one["expires"]), one.get("service"),
            )
            for one in raw["tokens"]
        ]  # fmt: skip
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"cannot read the tokens in {path}: {error}") from error


def _used(folder: Path, id_: str) -> Path:
    return folder / "used" / id_
