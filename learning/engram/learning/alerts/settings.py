"""Settings of the `alerts` extension. Data; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

STATES: Final = (
    "state:new",
    "state:back",
    "state:regressed",
    "state:spike",
    "state:predicted",
    "state:hit",
    "state:slower",
    "state:worse",
)
"""Tags of insights that somebody should hear of now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL that takes a POST of JSON."""

    url: str = ""
    """`https://...` or `http://...`."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, such as `authorization`."""

    timeout: timedelta = timedelta(seconds=5)
    """The longest wait for an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program that takes JSON on its standard input. There is no shell."""

    argv: tuple[str, ...] = ()
    """The program and its arguments; nothing of an alert is added to them."""

    timeout: timedelta = timedelta(seconds=10)
    """It is killed after this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """Settings of the `alerts` extension: who is told what."""

    webhooks: tuple[Webhook, ...] = ()
    """URLs that take a POST of JSON: `{url, headers, timeout}`."""

    commands: tuple[Command, ...] = ()
    """Programs that take JSON on their standard input: `{argv, timeout}`."""

    jobs: tuple[str, ...] = ()
    """Only insights of these jobs; empty is all of them."""

    tags: tuple[str, ...] = STATES
    """Only insights with one of these tags; empty is any."""

    min_importance: float = 0.7
    """Only insights of this importance or more, from 0 to 1."""

    quiet: timedelta = timedelta(hours=6)
    """Of the same error, operation or series one alert within this time."""

    per_hour: int = 10
    """Alerts in any hour; what is beyond comes as one message."""

    url: str = "http://127.0.0.1:4319"
    """Where people reach `engram serve`: alerts link to their memory there."""

    @property
    def any_hook(self) -> bool:
        """Whether anybody is told."""
        return bool(self.webhooks or self.commands)

    def problems(self) -> Iterator[str]:
        """Say what is wrong."""
        for at, hook in enumerate(self.webhooks):
            yield from _url_problems(f"webhooks[{at}].url", hook.url)
            yield from _wait_problems(f"webhooks[{at}].timeout", hook.timeout)
            for name, value in hook.headers.items():
                if any(mark in name + value for mark in "\r\n"):
                    yield f"webhooks[{at}].headers: a header is one line"
        for at, command in enumerate(self.commands):
            if not command.argv or not command.argv[0]:
                yield f"commands[{at}].argv: needs a program"
            yield from _wait_problems(f"commands[{at}].timeout", command.timeout)
        if not 0 <= self.min_importance <= 1:
            yield "min_importance: must be from 0 to 1"
        if self.quiet < timedelta(0):
            yield "quiet: must be 0 or more"
        if self.per_hour < 1:
            yield "per_hour: must be 1 or more"
        yield from _url_problems("url", self.url)


def _url_problems(key: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(mark <= " " for mark in url):
        yield f"{key}: must be a URL that begins with http:// or https://"


def _wait_problems(key: str, wait: timedelta) -> Iterator[str]:
    if not timedelta(milliseconds=100) <= wait <= timedelta(minutes=1):
        yield f"{key}: must be between 100ms and 1m"


__all__ = ["STATES", "Alerts", "Command", "Webhook"]
