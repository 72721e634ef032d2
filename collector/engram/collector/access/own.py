"""The owner's pass: what lets the command line of whoever owns the home ask its `serve`.

Where tokens are asked for, the owner would need one too, to read what is in files of their own. So
`serve` makes a secret for its lifetime and leaves it where only the owner can read it. Shown from
this machine it is what asking without tokens is: `local`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

from engram.collector.access.tokens import FOLDER, PREFIX
from engram.exporters import files
from engram.exporters.home import Home

_FILE: Final = "owner.json"


class OwnersPass:
    """The secret of one process, for as long as it is left in the home."""

    def __init__(self, home: Home) -> None:
        self._path = home.root / FOLDER / _FILE
        self._secret = ""

    @contextlib.contextmanager
    def left(self) -> Iterator[None]:
        """Leave it in the home.

        Raises:
            OSError: the home cannot be written; there is none then.
        """
        files.make_directory(self._path.parent, 0o700)
        made = PREFIX + secrets.token_urlsafe(32)
        fresh = self._path.with_name(f".{_FILE}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "w") as file:
            json.dump({"pid": os.getpid(), "secret": made}, file)
        fresh.replace(self._path)
        self._secret = made
        try:
            yield
        finally:
            self._secret = ""
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if json.loads(self._path.read_text()).get("pid") == os.getpid():
                    self._path.unlink()

    def shown(self, secret: str, scope: Mapping[str, Any]) -> bool:
        """Whether a request from this machine shows it."""
        if not self._secret or not _is_here(scope.get("client")):
            return False
        return secrets.compare_digest(secret.encode("utf-8", "replace"), self._secret.encode())


def found(home: Home) -> str | None:
    """The secret that `serve` has left, for who may read it."""
    try:
        return str(json.loads((home.root / FOLDER / _FILE).read_text())["secret"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_here(client: Any) -> bool:
    try:
        address = ipaddress.ip_address(str(client[0]))
    except (TypeError, IndexError, ValueError):
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


__all__ = ["OwnersPass", "found"]
