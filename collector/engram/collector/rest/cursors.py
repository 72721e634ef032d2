"""Cursors: opaque, and good for the question that they came from and no other."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from engram.exporters.errors import BadRequest


def sealed(inner: str | None, question: Any) -> str | None:
    """The cursor that is given out; None at the end."""
    if inner is None:
        return None
    return base64.urlsafe_b64encode(f"{_mark(question)}.{inner}".encode()).decode().rstrip("=")


def opened(cursor: str | None, question: Any) -> str | None:
    """What is in a cursor.

    Raises:
        BadRequest: it is none of ours, or of another question.
    """
    if cursor is None:
        return None
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise BadRequest("this cursor is none that was given out here") from error
    mark, dot, inner = raw.partition(".")
    if not dot:
        raise BadRequest("this cursor is none that was given out here")
    if mark != _mark(question):
        raise BadRequest("this cursor belongs to another question: keep the filters as they were")
    return inner


def _mark(question: Any) -> str:
    told = json.dumps(question, sort_keys=True, default=str).encode()
    return hashlib.blake2b(told, digest_size=6).hexdigest()
