"""Real Chromium, driven as its own tools drive it: DevTools over a pipe, trusted input.

Messages are JSON with a NUL behind each, over descriptors 3 and 4 of the browser: no port, no
package. A `Tab` is a page in a context (cookies, storage) of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LONG_S = 60.0

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-extensions "
    "--remote-debugging-pipe"
)
_AS_3_AND_4 = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(reads, 3), os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One running browser."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        theirs_in, self._writes = os.pipe()
        self._reads, theirs_out = os.pipe()
        command = [sys.executable, "-S", "-E", "-c", _AS_3_AND_4, str(theirs_in), str(theirs_out)]
        self._process = subprocess.Popen(
            [*command, CHROMIUM, *_FLAGS.split(), f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._turn = threading.Lock()
        self._asked = 0
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.heard: list[dict[str, Any]] = []
        """Every event of every tab, as it came."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        left = b""
        while more := os.read(self._reads, 1 << 16):
            *messages, left = (left + more).split(b"\0")
            for message in messages:
                said = json.loads(message)
                if "id" in said:
                    self._answers.pop(said["id"]).put(said)
                else:
                    self.heard.append(said)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a DevTools command."""
        answer: queue.Queue[dict[str, Any]] = queue.Queue()
        with self._turn:
            self._asked += 1
            asked = {"id": self._asked, "method": method, "params": parameters}
            self._answers[self._asked] = answer
            if session:
                asked["sessionId"] = session
            message = json.dumps(asked).encode() + b"\0"
            while message:
                message = message[os.write(self._writes, message) :]
        said = answer.get(timeout=LONG_S)
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    @contextlib.contextmanager
    def tab(self) -> Iterator[Tab]:
        """A page that shares nothing with the others; gone afterwards."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        try:
            yield Tab(self, context)
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def close(self) -> None:
        """Ask it to go, and see that it does."""
        with contextlib.suppress(AssertionError, OSError, queue.Empty):
            self.call("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(20)
        os.close(self._writes)
        os.close(self._reads)


class Tab:
    """One page: what a person does with it, and what its console says."""

    def __init__(self, browser: Chromium, context: str) -> None:
        self._browser = browser
        made = browser.call("Target.createTarget", url="about:blank", browserContextId=context)
        self._target = made["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A DevTools command to this page."""
        return self._browser.call(method, self._session, **parameters)

    def heard(self, *methods: str) -> list[dict[str, Any]]:
        """Events of these kinds so far."""
        return [
            one["params"]
            for one in list(self._browser.heard)
            if one.get("sessionId") == self._session and one["method"] in methods
        ]

    def go(self, url: str) -> None:
        """Load a page, as by the address bar."""
        with self.loading():
            self.call("Page.navigate", url=url)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """What is done inside ends with another page, fully loaded."""
        before = len(self.heard("Page.loadEventFired"))
        yield
        until(lambda: len(self.heard("Page.loadEventFired")) > before, "another page is loaded")

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it becomes."""
        said = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element."""
        x, y = self.run(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, selector: str, text: str) -> None:
        """Click into a field and type."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def enter(self) -> None:
        """Press the return key."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def back(self) -> None:
        """The button of the browser."""
        history = self.call("Page.getNavigationHistory")
        entry = history["entries"][history["currentIndex"] - 1]
        self.call("Page.navigateToHistoryEntry", entryId=entry["id"])

    def close(self) -> None:
        """Close the tab, as by its cross: the page is told that it goes."""
        self.call("Page.close")

    def complaints(self) -> list[str]:
        """Errors and warnings in the console that are not the network's own."""
        said = [
            json.dumps(one)
            for one in self.heard("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
            if one.get("type", "error") in ("error", "warning", "assert")
        ]
        logged = [one["entry"] for one in self.heard("Log.entryAdded")]
        return said + [json.dumps(one) for one in logged if one["source"] != "network"]


def until(holds: Callable[[], Any], what: str, seconds: float = LONG_S) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)
    return found
