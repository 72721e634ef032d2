"""How a message gets to a hook: a POST, or a program's standard input."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from http.client import HTTPException
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from engram.learning.alerts.settings import Alerts, Command, Webhook

_SAID: Final = 500
"""Characters of an answer that are shown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    ok: bool
    again: bool
    """Whether it may work later; of no meaning when it is ok."""
    text: str


class Hook(Protocol):
    """Who is told."""

    name: str
    """For the state: the same hook has the same name, however the settings are ordered."""
    about: str
    """For people; without secrets."""

    def send(self, message: Mapping[str, Any]) -> Answer:
        """Send one. It MUST NOT raise, and MUST come back within about its timeout."""
        ...


class WebhookHook:
    """A POST of JSON. A redirection is not followed: it would go where nobody configured it to."""

    def __init__(self, settings: Webhook) -> None:
        self._settings = settings
        parts = urlsplit(settings.url)
        self.name = _name("webhook", settings.url)
        # What is behind the host is often the secret.
        self.about = f"webhook {parts.scheme}://{parts.hostname}" + (
            f":{parts.port}" if parts.port else ""
        )

    def send(self, message: Mapping[str, Any]) -> Answer:
        """See `Hook`."""
        seconds = self._settings.timeout.total_seconds()
        answers: list[Answer] = []
        thread = threading.Thread(
            target=lambda: answers.append(self._post(message, seconds)), daemon=True
        )
        thread.start()
        # The timeout of a socket is for each read; of all of them this is the limit.
        thread.join(2 * seconds)
        return answers[0] if answers else Answer(False, True, f"no answer in {2 * seconds:g} s")

    def _post(self, message: Mapping[str, Any], seconds: float) -> Answer:
        headers = {
            "content-type": "application/json",
            "user-agent": "engram-alerts",
            "engram-alert-id": str(message["id"]),
            **self._settings.headers,
        }
        try:
            request = urllib.request.Request(  # noqa: S310 - the settings allow http and https
                self._settings.url, data=_body(message), headers=headers, method="POST"
            )
            with _OPENER.open(request, timeout=seconds) as answer:
                return Answer(True, False, f"{answer.status} {_short(answer.read(_SAID))}".strip())
        except urllib.error.HTTPError as refused:
            with refused:
                again = refused.code >= 500 or refused.code in (408, 425, 429)
                said = ""
                with contextlib.suppress(OSError, HTTPException):
                    said = _short(refused.read(_SAID))
                return Answer(False, again, f"{refused.code} {said}".strip())
        except (OSError, HTTPException, ValueError) as failed:
            reason = getattr(failed, "reason", failed)
            return Answer(False, True, str(reason) or type(failed).__name__)


class CommandHook:
    """A program of its own session, so that what it started is killed with it."""

    def __init__(self, settings: Command) -> None:
        self._settings = settings
        self.name = _name("command", json.dumps(settings.argv))
        self.about = f"command {os.path.basename(settings.argv[0])}"

    def send(self, message: Mapping[str, Any]) -> Answer:
        """See `Hook`."""
        seconds = self._settings.timeout.total_seconds()
        with tempfile.TemporaryFile() as output:  # not a pipe: what it starts may keep it open
            try:
                process = subprocess.Popen(  # noqa: S603 - the operator's own command
                    list(self._settings.argv),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as failed:
                return Answer(False, True, f"cannot be started: {failed}")
            try:
                process.communicate(_body(message), timeout=seconds)
            except subprocess.TimeoutExpired:
                return Answer(False, True, f"killed after {seconds:g} s")
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdin is not None:
                    with contextlib.suppress(OSError):
                        process.stdin.close()
            output.seek(0)
            said = _short(output.read(_SAID))
        code = process.returncode
        return Answer(code == 0, True, f"exit code {code} {said}".strip())


def hooks(settings: Alerts) -> list[Hook]:
    """All hooks of the settings; of equal ones, one."""
    made: list[Hook] = [WebhookHook(one) for one in settings.webhooks]
    made += [CommandHook(one) for one in settings.commands]
    return list({one.name: one for one in made}.values())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Do not."""


_OPENER: Final = urllib.request.build_opener(_NoRedirect)


def _body(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")


def _short(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _name(kind: str, what: str) -> str:
    digest = blake2b(what.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return f"{kind}:{digest}"


__all__ = ["Answer", "CommandHook", "Hook", "WebhookHook", "hooks"]
