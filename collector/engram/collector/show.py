"""`engram show`: one memory and what belongs to it, for people.

Every text was written by somebody's program, so it goes through `printable`, line by line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TextIO

from engram.collector.output import plain, printable

_FRAMES: Final = 6
_BODY_LINES: Final = 40
_LABEL: Final = 13


def write_context(told: Mapping[str, Any], out: TextIO) -> None:
    """A memory's context (`engram.learning.context.context`) as text."""
    memory, error = told["memory"], told["error"]
    out.write(f"{_line(memory['title'] or memory['type'])}\n")
    facts = {
        "id": memory["id"],
        "type": memory["type"],
        "time": _when(memory["time"]),
        "outcome": memory["outcome"],
        "service": memory["service_name"],
        "user": _inherited(memory, "user_id"),
        "session": _inherited(memory, "session_id"),
        "conversation": _inherited(memory, "conversation_id"),
        "trace": memory["trace_id"],
        "reported": f"{memory['reports']} times, by {memory['source']}, trust {memory['trust']}",
        "fingerprint": memory["fingerprint"],
    }
    _facts(facts, out)
    if error is not None:
        _error(error, out)
    else:
        _body(memory["content"], out)
    _section("links", (_link(one) for one in told["links"]), out)
    _section("conversation", (_turn(one, memory["id"]) for one in told["turns"]), out)
    _section("around it", (_near(one) for one in told["around"]), out)


def _error(error: Mapping[str, Any], out: TextIO) -> None:
    for at, cause in enumerate(error["causes"]):
        lead = "raised" if not at else cause["how"]
        said = ": ".join(one for one in (cause["type"], cause["message"]) if one)
        out.write(f"\n{lead}  {_line(said, 400)}\n")
        for frame in cause["frames"][:_FRAMES]:
            place = f"{frame['file']}:{frame['line']}" if frame["line"] else frame["file"]
            mark = "*" if frame["app"] else " "
            out.write(f"  {mark} {_line(frame['function'], 60)}  {_line(place, 120)}\n")
        if len(cause["frames"]) > _FRAMES:
            out.write(f"    … and {len(cause['frames']) - _FRAMES} more\n")
    for name in ("request", "service"):
        found = {key: value for key, value in (error[name] or {}).items() if value is not None}
        if found:
            out.write(f"\n{name}\n")
            _facts(found, out, "  ")
    before = (f"{-one['seconds_before']:+9.3f} s  {one['what']}: {_line(one['title'])}"
              for one in error["before"])  # fmt: skip
    _section("before it", before, out)
    for name, title in (("llm_calls", "models asked"), ("calls", "services called"),
                        ("other_errors", "other errors of its trace")):  # fmt: skip
        _section(title, (f"{_line(one['title'])}  {one['id']}" for one in error[name]), out)


def _facts(facts: Mapping[str, Any], out: TextIO, indent: str = "") -> None:
    for key, value in facts.items():
        if value is not None:
            out.write(f"{indent}{key.ljust(_LABEL)}{_line(str(plain(value)), 400)}\n")


def _section(title: str, lines: Iterable[str], out: TextIO) -> None:
    for at, line in enumerate(lines):
        out.write(f"\n{title}\n" if not at else "")
        out.write(f"  {line}\n")


def _body(text: str | None, out: TextIO) -> None:
    lines = (text or "").split("\n")
    _section("content", (_line(one, 400) for one in lines[:_BODY_LINES] if one.strip()), out)
    if len(lines) > _BODY_LINES:
        out.write(f"  … and {len(lines) - _BODY_LINES} more lines\n")


def _line(text: str | None, most: int = 160) -> str:
    shown = printable(text or "")
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _when(time: Any) -> str | None:
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _inherited(memory: Mapping[str, Any], name: str) -> str | None:
    value, how = memory[name], memory["inferred"].get(name)
    if how is None:
        return str(value) if value is not None else None
    return f"{value or 'not clear'}  (from the trace: {how})"


def _link(one: Mapping[str, Any]) -> str:
    this, that = f"this {one['relation']}", f"{one['type']} {_line(one['title'], 90)}"
    said = f"{this} {that}" if one["way"] == "from here" else f"{that} {one['relation']} this"
    return f"{said}  {one['id']}"


def _turn(one: Mapping[str, Any], id_: str) -> str:
    mark = ">" if one["memory_id"] == id_ else " "
    return f"{mark}{one['turn']:3}  {one['role']:9}  {_line(one['text'], 120)}"


def _near(one: Mapping[str, Any]) -> str:
    kind = one["type"] or one["kind"]
    if one["kind"] == "log":
        kind = f"log {one['type'] or ''}".rstrip()
    said = f"{one['seconds_after']:+9.3f} s  {kind}: {_line(one['title'], 110)}"
    return f"{said}  {one['id']}" if one["id"] else said
