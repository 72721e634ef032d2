"""The configuration that is in effect, as plain values for people: merged, expanded, with defaults.

Secrets are masked: values under keys that name one, headers, and passwords in URLs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from engram.collector.component import Kind
from engram.collector.config import Config

MASK: Final = "****"

_SECRET: Final = re.compile(
    r"password|passwd|passphrase|secret|token|authorization|credential|cookie|api[-_.]?key|"
    r"(?:private|access|signing)[-_.]?key$",
    re.IGNORECASE,
)
_PATH: Final = re.compile(r"(\w+://[^/?#]*)[/?#].+")
_USERINFO: Final = re.compile(r"(\w+://)[^/@\s]*@")


def effective(config: Config) -> dict[str, Any]:
    """The sections of the file, as they are after merging, `--set` and the environment."""
    found: dict[str, Any] = {}
    for kind in Kind:
        section = {
            str(at): _plain(settings) for at, settings in config.components.get(kind, {}).items()
        }
        if section:
            found[kind.value] = section
    found["service"] = {
        "extensions": [str(at) for at in config.extensions],
        "pipelines": {
            one.name: {
                kind.value: [str(at) for at in getattr(one, kind.value)]
                for kind in (Kind.RECEIVER, Kind.PROCESSOR, Kind.EXPORTER)
            }
            for one in config.pipelines
        },
        "telemetry": {"logs": {"level": config.log_level}},
    }
    return found


def _plain(value: Any, key: str = "") -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        # A key with nothing behind it means a part with its defaults: what is not there, stays out.
        return _plain({name: one for name, one in fields.items() if one is not None})
    if isinstance(value, Mapping):
        if key == "headers":
            return dict.fromkeys(map(str, value), MASK)
        hidden = _names_secret(value)
        return {
            str(name): MASK if name == "value" and hidden else _plain(one, str(name))
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, str):
        if key == "url":  # of a webhook: what is behind the host is often the secret
            value = _PATH.sub(rf"\1/{MASK}", value)
        masked = _SECRET.search(key) and not key.endswith(("_file", "_patterns", "_keys"))
        return MASK if masked and value else _USERINFO.sub(rf"\1{MASK}@", str(value))
    return value


def _names_secret(value: Mapping[str, Any]) -> bool:
    """Whether this is an action that sets a secret: `key: api_key, value: ...`."""
    return isinstance(value.get("key"), str) and bool(_SECRET.search(value["key"]))


def duration_text(value: timedelta) -> str:
    """A duration as it is written: `1h30m`, `200ms`, `0s`."""
    rest = value // timedelta(microseconds=1)
    text = ""
    for unit, size in (("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000)):
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text + (f"{rest}us" if rest else "") or "0s"
