"""Answers as text: aligned tables for people, JSON for programs.

What is printed was said by somebody's program: control characters never reach the terminal raw.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final, TextIO

from engram.collector.query import Result

_MEASURED_ROWS: Final = 1000
"""The widths of a table are those of its first rows: a result may be larger than memory."""

_LEAST_WIDTH: Final = 6


def plain(value: Any) -> Any:
    """A value of DuckDB as JSON has it: ISO times, hex bytes, null for what is not a number."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return str(value)


def dumps(value: Any) -> str:
    """JSON text of anything `plain` knows."""
    return json.dumps(plain(value), ensure_ascii=False)


def write_json(result: Result, out: TextIO) -> None:
    """One array of objects, written as the rows come."""
    out.write("[")
    for at, row in enumerate(result.rows):
        out.write(",\n " if at else "")
        out.write(dumps(dict(zip(result.columns, row, strict=True))))
    out.write("]\n")


def write_csv(result: Result, out: TextIO) -> None:
    """Comma-separated values (RFC 4180) with a header; NULL is empty, lists and maps are JSON."""
    import csv

    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(result.columns)
    for row in result.rows:
        values = (plain(value) for value in row)
        writer.writerow(
            json.dumps(one, ensure_ascii=False) if isinstance(one, list | dict | bool) else one
            for one in values
        )


def write_lines(result: Result, out: TextIO) -> None:
    """One line for each value, an empty line between rows: for rows too wide for a table."""
    width = max((text_width(name) for name in result.columns), default=0)
    for at, row in enumerate(result.rows):
        out.write("\n" if at else "")
        for name, value in zip(result.columns, row, strict=True):
            out.write(f"{_fit(printable(name), width, right=True)} = {_cell(value)}\n")


def write_result(result: Result, out: TextIO, mode: str) -> None:
    """The answer as `table`, `json`, `csv` or `line`."""
    if mode == "table":
        write_table(result, out, count=False)
    else:
        {"json": write_json, "csv": write_csv, "line": write_lines}[mode](result, out)


def write_limited(result: Result, out: TextIO, mode: str, limit: int) -> None:
    """The first `limit` rows (0: all); what is left out is said on stderr."""
    if not limit:
        if mode == "table":
            write_table(result, out)
        else:
            write_result(result, out, mode)
        return
    write_result(replace(result, rows=islice(result.rows, limit)), out, mode)
    more = sum(1 for _ in result.rows)
    if more:
        sys.stderr.write(f"… {more:,} more row{'' if more == 1 else 's'} (--limit)\n")


def columns(names: list[str], out: TextIO) -> str:
    """Names side by side, as many as fit; one a line when the output goes elsewhere."""
    width = max((text_width(name) for name in names), default=0) + 2
    across = max(1, ((terminal_width(out) or 0) - 2) // width)
    rows = [names[at : at + across] for at in range(0, len(names), across)]
    return "".join("  " + "".join(_fit(n, width) for n in row).rstrip() + "\n" for row in rows)


def printable(text: str) -> str:
    """The text in one line, without anything a terminal would obey."""
    if text.isprintable():
        return text
    names = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return "".join(
        one if one.isprintable() else names.get(one) or f"\\x{ord(one):02x}" for one in text
    )


def _cell(value: Any) -> str:
    value = plain(value)
    if value is None:
        return "NULL"
    if isinstance(value, bool | list | dict):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(value) if isinstance(value, str) else str(value)


def text_width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def shorten(text: str, width: int) -> str:
    """The text in at most so many columns, with an ellipsis where it was cut."""
    return text if text_width(text) <= width else _fit(text, width).rstrip()


def _fit(text: str, width: int, *, right: bool = False) -> str:
    room = width - text_width(text)
    if room >= 0:
        return " " * room + text if right else text + " " * room
    kept, used = [], 1
    for one in text:
        used += text_width(one)
        if used > width:
            break
        kept.append(one)
    shortened = "".join(kept) + "…"
    return shortened + " " * (width - text_width(shortened))


def terminal_width(out: TextIO) -> int | None:
    """Columns of the terminal; None when the output goes elsewhere."""
    return shutil.get_terminal_size().columns if out.isatty() else None


def wants_colour(out: TextIO) -> bool:
    """Whether `out` is a terminal whose owner did not say no (https://no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_table(result: Result, out: TextIO, *, count: bool = True) -> None:
    """Aligned columns: shortened to the terminal, whole when piped."""
    rows = iter(result.rows)
    head = list(islice(rows, _MEASURED_ROWS))
    cells = [[_cell(value) for value in row] for row in head]
    names = [printable(name) for name in result.columns]
    widths = [
        max([text_width(name), *(text_width(row[at]) for row in cells)])
        for at, name in enumerate(names)
    ]
    right = [
        any(isinstance(row[at], int | float | Decimal) for row in head)
        and not any(isinstance(row[at], bool | str) for row in head)
        for at in range(len(names))
    ]
    width = terminal_width(out)
    if width is not None:
        widths = _shrink(widths, width - 2 * (len(widths) - 1))

    def line(texts: Iterable[str]) -> str:
        parts = [
            _fit(text, at, right=side) if width is not None or text_width(text) <= at else text
            for text, at, side in zip(texts, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip() + "\n"

    out.write(line(names))
    out.write("  ".join("-" * at for at in widths) + "\n")
    total = len(head)
    out.writelines(line(row) for row in cells)
    for row in rows:
        total += 1
        out.write(line(_cell(value) for value in row))
    if count and width is not None:
        out.write(f"({total} row{'' if total == 1 else 's'})\n")


def _shrink(widths: list[int], room: int) -> list[int]:
    """Take from the widest columns until the table fits."""
    widths = [min(width, max(room, _LEAST_WIDTH)) for width in widths]
    while sum(widths) > room and max(widths, default=0) > _LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def write_answer(answer: Mapping[str, Any], out: TextIO, *, explain: bool = False) -> None:
    """Search results for people: what, when, where from, and how far to trust it."""
    width = (terminal_width(out) or 100) - 4
    why = answer["explanation"]
    if not answer["hits"]:
        out.write("nothing relevant\n")
    if explain:
        _write_explanation(why, out)
    for at, hit in enumerate(answer["hits"], start=1):
        about = [
            str(hit.get("type", "")),
            str(plain(hit.get("time")) or "")[:19],
            str(hit.get("service") or ""),
            f"score {hit.get('score') or 0:.3f}",
            "/".join(str(hit[key]) for key in ("source", "trust") if hit.get(key)),
            f"{hit['count']:,} times" if int(hit.get("count") or 1) > 1 else "",
        ]
        out.write(f"{at:2}  {printable('  '.join(one for one in about if one))}\n")
        title = printable(str(hit.get("title") or ""))
        content = printable(" ".join(str(hit.get("content") or "").split()))
        for text in dict.fromkeys((title, content)):
            if text:
                out.write(f"    {shorten(text, width)}\n")
        if explain:
            out.write(f"    {_why(hit, why)}\n")


def _write_explanation(why: Mapping[str, Any], out: TextIO) -> None:
    filters = ", ".join(f"{name} = {value}" for name, value in why["filters"].items()) or "none"
    out.write(
        f"words    {printable(' '.join(why['words'])) or 'none'}\n"
        f"mode     {why['mode']}; score = (BM25 / best x {why['text_weight']:g} + cosine x "
        f"{why['vector_weight']:g}) / the most there is\n"
        f"filters  {printable(filters)}\n"
        f"relevant with {why['least_share']:.0%} of the words or a likeness of "
        f"{why['least_cosine']:.2f}; {why['candidates']} candidates, {why['irrelevant']} of those "
        "looked at were not\n\n"
    )


def _why(hit: Mapping[str, Any], explanation: Mapping[str, Any]) -> str:
    why = hit["why"]
    matched = " ".join(why["matched"]) or "no word"
    text = f"{hit['score']:.3f} = (text {why['text']:.3f} ({printable(matched)})"
    if explanation["mode"] == "hybrid":
        text += f" + meaning {why['vector']:.3f}"
    text += f") x {why['factor']:.3f} of age, importance and outcomes"
    return text + (f" x {why['superseded']:g}, superseded" if "superseded" in why else "")


def write_status(facts: Mapping[str, Any], out: TextIO, indent: str = "") -> None:
    """Names and values, nested ones indented."""
    names = [str(key) for key in facts]
    width = max((len(name) for name in names), default=0)
    for key, value in facts.items():
        if isinstance(value, Mapping):
            out.write(f"{indent}{key}{'' if value else ': none'}\n")
            write_status(value, out, indent + "  ")
        else:
            out.write(f"{indent}{str(key).ljust(width)}  {_fact(str(key), value)}\n")


def _fact(name: str, value: Any) -> str:
    """A value of a status as people read it."""
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(_cell(one) for one in value)
    if isinstance(value, bool) or not isinstance(value, int | float) or name == "pid":
        return _cell(value)
    if name.endswith("_s"):
        return str(timedelta(seconds=round(value)))
    if name.endswith("_bytes") and value >= 1 << 20:
        return f"{value:,} ({value / (1 << 20):,.1f} MiB)"
    return f"{value:,}"
