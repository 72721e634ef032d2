"""Stack traces read: the chain of causes, each with its type, message and frames.

Pure functions over text. What is raised comes first and the root cause last, whatever the order in
which a language prints them. What is not understood is one cause without frames, never an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

MOST_CAUSES: Final = 50
MOST_CHARACTERS: Final = 200_000
"""Of a stack that are read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One call. Frames are ordered from where the exception was raised outwards."""

    file: str
    line: int | None
    function: str
    app: bool
    """Of the app's own code, as far as paths tell; not of a library or the language."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One exception of a chain."""

    type: str | None
    message: str
    how: str
    """How it came to be: raised; and as the cause of the one before it: direct cause, during
    handling, caused by, wrapped, suppressed, in group."""

    frames: tuple[Frame, ...] = field(default=())


_LIBRARY: Final = re.compile(
    r"site-packages|dist-packages|/lib/python|\bnode_modules\b|<frozen|<string>|^node:"
    r"|/pkg/mod/|/usr/(?:local/)?go/src|^internal/|/rustc/|\.cargo/registry|\\Lib\\"
)
_JAVA_LIBRARY: Final = re.compile(
    r"(?:java|javax|jdk|sun|com\.sun|kotlin|kotlinx|scala|jakarta|io\.netty|reactor"
    r"|org\.(?:springframework|apache|hibernate|eclipse|junit)|System|Microsoft)\."
)
_TYPED: Final = re.compile(
    r"(?P<type>\*?(?:[A-Za-z_$][\w$]*[./])*[A-Za-z_$][\w$]*(?: \[\w+\])?)(?:: ?(?P<message>.*))?",
    re.S,
)

_PYTHON_HEAD: Final = "Traceback (most recent call last):"
_PYTHON_JOINTS: Final = re.compile(
    r"^[ |]*(?P<how>The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\s*$",
    re.M,
)
_PYTHON_FRAME: Final = re.compile(r'^\s*File "([^"]+)", line (\d+), in (.+?)\s*$')
_GROUP_RULE: Final = re.compile(r"^\s*(?:\+-)?\+-{4,}")
_GROUP_MARGIN: Final = re.compile(r"^(?:  )*\s*[|+] ?")
_JAVA_FRAME: Final = re.compile(
    r"^\s*at (?:[\w.-]+/)*([\w.$]+)\.([\w$<>]+)"
    r"\((Native Method|Unknown Source|[\w$-]+\.(?:java|kt|scala|groovy|clj))(?::(\d+))?\)"
)
_DOTNET_FRAME: Final = re.compile(r"^\s*at (.+?)\((.*?)\)(?: in (.+):line (\d+))?\s*$")
_JS_FRAME: Final = re.compile(
    r"^\s*(?:at (?:async )?(?:(.+?) \()?|(\S*?)@)((?:[a-z-]+:)?[^\s()]+?):(\d+)(?::\d+)?\)?[ {]*$"
)
_GO_CALL: Final = re.compile(
    r"^(?:created by )?([\w./*()\-]+?)(?:\([^\n]*\))?(?: in goroutine \d+)?$"
)
_GO_PLACE: Final = re.compile(r"^\t(\S+\.go):(\d+)")
_CAUSED: Final = re.compile(r"^(\s*)(Caused by|Suppressed|\[cause\]|cause): ?(.*)$")
_DOTNET_CAUSE: Final = re.compile(r"\s*---> ?")
_DOTNET_END: Final = "--- End of inner exception stack trace ---"
_RUST_CAUSE: Final = re.compile(r"^\s+(?:\d+: )?(\S.*)$")
_GO_TYPE: Final = re.compile(r"\*(?:[\w/]+\.)?\w+$")


def causes(
    stack: str | None, *, type_: str | None = None, message: str | None = None
) -> tuple[Cause, ...]:
    """The chain of an exception, from what was raised to the root cause.

    `type_` and `message` are what the telemetry says besides: they stand in for what it lacks.
    """
    text = (stack or "")[:MOST_CHARACTERS].replace("\r\n", "\n")
    if _PYTHON_HEAD in text:
        found = _python(text)
    elif _is_go(text, type_):
        found = _go(text, type_, message)
    else:
        found = _caused_by(text)
    if not found:
        found = [Cause(type_, message or "", "raised")] if type_ or message else []
    if found:
        first = found[0]
        if message and not first.message and not (type_ and first.type and first.type != type_):
            first = replace(first, message=message)
        found[0] = replace(first, type=first.type or type_, how="raised")
    return tuple(found[:MOST_CAUSES])


def _typed(line: str) -> tuple[str | None, str]:
    """Type and message of `Type: message`; a line without a type is all message."""
    line = line.strip()
    match = _TYPED.fullmatch(line)
    if match is None or (match["message"] is None and " " in line):
        return None, line
    name = match["type"].split(" ")[0]
    last = re.split(r"[./]", name)[-1].lstrip("*")
    if not (last[:1].isupper() or "." in name or "*" in name):
        return None, line
    return name, (match["message"] or "").strip()


def _app(file: str) -> bool:
    return not _LIBRARY.search(file)


# -- Python ----------------------------------------------------------------------------------------


def _python(text: str) -> list[Cause]:
    """Python prints the root cause first, so the chain is turned round."""
    parts = _PYTHON_JOINTS.split(text)
    found: list[Cause] = []
    how = "raised"
    for at in range(len(parts) - 1, -1, -2):
        block = _python_block(parts[at], how)
        found += block
        joint = parts[at - 1] if at else ""
        how = "direct cause" if joint.startswith("The above") else "during handling"
    return found


def _python_block(text: str, how: str) -> list[Cause]:
    """One traceback, and behind it the exceptions of its group."""
    found: list[Cause] = []
    frames: list[Frame] = []
    said: list[str] | None = None

    def end() -> None:
        nonlocal said, frames
        if said:
            type_, message = _typed("\n".join(said).rstrip())
            mine = how if not found else "in group"
            found.append(Cause(type_, message, mine, tuple(reversed(frames))))
        said, frames = None, []

    for line in text.split("\n"):
        if _GROUP_RULE.match(line):
            end()
            said = []  # a member of a group may have no traceback of its own
            continue
        bare = _GROUP_MARGIN.sub("", line)
        if _PYTHON_HEAD in bare:
            end()
            said = []
            continue
        if said is None:
            continue
        frame = _PYTHON_FRAME.match(bare)
        if frame and not said:
            frames.append(Frame(frame[1], int(frame[2]), frame[3], _app(frame[1])))
        elif said or (bare[:1].strip() and not bare.startswith("[Previous line repeated")):
            said.append(bare)
    end()
    return found


# -- Java, JavaScript, .NET, Rust ------------------------------------------------------------------


def _frame(line: str) -> Frame | None:
    if java := _JAVA_FRAME.match(line):
        where, function, file, number = java.groups()
        app = not _JAVA_LIBRARY.match(where) and "/" not in file
        called = f"{where.rpartition('.')[2]}.{function}"
        return Frame(file or where, int(number) if number else None, called, app)
    if js := _JS_FRAME.match(line):
        function = js[1] or js[2] or "<anonymous>"
        return Frame(js[3], int(js[4]), function, _app(js[3]))
    if net := _DOTNET_FRAME.match(line):
        file, number = net[3] or "", net[4]
        return Frame(file, int(number) if number else None, net[1], not _JAVA_LIBRARY.match(net[1]))
    return None


def _caused_by(text: str) -> list[Cause]:
    """`Type: message`, frames, and blocks that say what caused it, in this order."""
    found: list[Cause] = []
    said: list[str] = []
    frames: list[Frame] = []
    how, listing, inner_ends = "raised", False, 0

    def end() -> None:
        nonlocal said, frames
        if inner_ends and frames and not said:  # .NET: back in the one that it caused
            outer = max(0, len(found) - 1 - inner_ends)
            found[outer] = replace(found[outer], frames=tuple(frames))
        elif said or frames:
            type_, message = _typed("\n".join(said))
            found.append(Cause(type_, message, how, tuple(frames)))
        said, frames = [], []

    for line in text.split("\n"):
        caused = _CAUSED.match(line)
        if caused is not None:
            end()
            how = "suppressed" if caused[2] == "Suppressed" else "caused by"
            listing = not caused[3].strip()
            said = [caused[3]] if caused[3].strip() else []
        elif listing and (one := _RUST_CAUSE.match(line)):
            end()
            said = [one[1]]
        elif _DOTNET_CAUSE.match(line) and "--->" in line:
            end()
            how, said = "caused by", [_DOTNET_CAUSE.sub("", line, count=1)]
        elif line.strip() == _DOTNET_END and found:
            end()
            inner_ends += 1
        elif frame := _frame(line):
            frames.append(frame)
        elif not frames and line.strip() and line.strip() not in "{}":
            before, arrow, inner = line.partition(" ---> ")  # .NET Framework: all in one line
            said.append(before)
            if arrow:
                end()
                how, said = "caused by", [inner]
    end()
    return found


# -- Go --------------------------------------------------------------------------------------------


def _is_go(text: str, type_: str | None) -> bool:
    return text.startswith(("goroutine ", "panic: ")) or bool(
        re.search(r"^\t\S+\.go:\d+", text, re.M) or (type_ and _GO_TYPE.match(type_))
    )


def _go(text: str, type_: str | None, message: str | None) -> list[Cause]:
    """Go wraps by text: `read config: open x: no such file` is three errors, outermost first."""
    frames: list[Frame] = []
    lines = text.split("\n")
    for call, place in pairwise(lines):
        at = _GO_PLACE.match(place)
        named = _GO_CALL.match(call)
        if at and named and not named[1].startswith(("runtime.", "panic", "runtime/debug")):
            function = named[1].rpartition("/")[2]
            frames.append(Frame(at[1], int(at[2]), function, _app(at[1])))
    said = message or ""
    if not said and lines[0].startswith("panic: "):
        said = lines[0].removeprefix("panic: ").split(" [recovered]")[0]
    elif not said and lines[0] and not lines[0].startswith("goroutine "):
        said = lines[0]
    found = [Cause(type_, said, "raised", tuple(frames))]
    rest = said.split("\n")[0]
    while ": " in rest and len(found) < MOST_CAUSES:
        rest = rest.partition(": ")[2]
        found.append(Cause(None, rest, "wrapped"))
    return found if said or frames or type_ else []
