"""The marks around recalled text, by which it is known again when it comes back in a prompt.

What memory tells an agent is in the agent's next prompt, and that prompt is telemetry. Were it kept
as something that was said, memory would believe its own echo: one wrong statement becomes hundreds.
So whatever stands between these marks is taken out of every memory that is made, by each record
alone: the ids are the same whether an echo came or not, in any order.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

NAME: Final = "engram:recalled"

_FENCED: Final = re.compile(
    # Also without its end, which a limit of length cut off; a quoted fence may be JSON in a JSON.
    rf"\s*<<<{NAME} ([0-9a-f]{{16}})>>>.*?(?:<<<end {NAME} \1>>>|\Z)",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(
    # As JSON encoders for web pages write it.
    rf"\s*(?:\\+u003[cC]){{3}}{NAME} ([0-9a-f]{{16}})(?:\\+u003[eE]){{3}}.*?"
    rf"(?:(?:\\+u003[cC]){{3}}end {NAME} \1(?:\\+u003[eE]){{3}}|\Z)",
    re.DOTALL,
)


def begin(number: str) -> str:
    """The line before recalled text; `number` is 16 hex digits that are not in it."""
    return f"<<<{NAME} {number}>>>"


def end(number: str) -> str:
    """The line after it."""
    return f"<<<end {NAME} {number}>>>"


def without(text: str) -> str:
    """The text without what was recalled into it."""
    if NAME not in text:
        return text
    return _ESCAPED.sub("", _FENCED.sub("", text)).strip()


def without_json(text: str) -> str:
    """The same in each text of a JSON value."""
    if NAME not in text:
        return text
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return without(text)
    return json.dumps(_cleaned(value), ensure_ascii=False, separators=(",", ":"))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return without(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {key: _cleaned(one) for key, one in value.items()}
    return value


__all__ = ["NAME", "begin", "end", "without", "without_json"]
