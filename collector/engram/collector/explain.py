"""`engram rules`: the effective rules, and what they say of records in the lake or in a file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from engram.collector.component import Kind as ComponentKind
from engram.collector.config import Config
from engram.collector.output import printable
from engram.collector.registry import Redaction
from engram.collector.rules import check, rules_of
from engram.exporters.errors import BadRequest, NotFound
from engram.exporters.home import Home
from engram.exporters.rules import words
from engram.exporters.rules.explain import Explained
from engram.exporters.rules.explain import explain as explain_frame
from engram.exporters.rules.load import Kind, RuleSet, load
from engram.exporters.signals import Signal

if TYPE_CHECKING:
    import polars as pl

_CLOSEST: Final = 3
_MOST: Final = 500
"""Records that are explained: a person reads them."""


def table() -> str:
    """The Markdown of docs/types.md."""
    return words.document(load())


def listed(config: Config) -> list[dict[str, Any]]:
    """Every rule, also those that are switched off, in the order in which they are tried."""
    check(config)
    own = {str(rule["name"]): rule for rule in rules_of(config)}
    built_in = {rule.name: rule for rule in load().rules}
    effective = {rule.name: rule for rule in load([dict(rule) for rule in own.values()]).rules}
    made = []
    for name in dict.fromkeys([*built_in, *own]):
        rule = effective.get(name) or built_in.get(name)
        origin = "yours" if name in own else "built-in"
        if name in own and name in built_in:
            origin = "yours, for the built-in one"
        if name not in effective:
            origin = "switched off"
        made.append(
            {
                "name": name,
                "origin": origin,
                "type": (words.type_of(rule) or "as marked") if rule else None,
                "signals": list(rule.signal) if rule else [],
                "when": words.condition(rule.when) if rule else None,
                "index_as": rule.index_as if rule else None,
            }
        )
    return made


def write_list(listed: list[dict[str, Any]], out: TextIO) -> None:
    """The list for people."""
    for one in listed:
        kinds = words.signals(one["signals"])
        out.write(f"{one['name']} → {one['type'] or '-'}  ({kinds or '-'}; {one['origin']})\n")
        if one["when"]:
            out.write(f"    when {printable(one['when'])}\n")


def explain(home: Home, config: Config, what: str, *, all_rules: bool) -> dict[str, Any]:
    """What the rules say of the records of a trace in the lake, or of a file.

    Raises:
        NotFound: no such file, lake or trace.
        BadRequest: it is neither a trace id nor a file of OTLP.
        ConfigError: the configuration's rules are wrong.
    """
    check(config)
    own = [dict(rule) for rule in rules_of(config)]
    rules = load(own)
    off = frozenset(str(rule["name"]) for rule in own if rule.get("enabled") is False)
    # What is switched off is explained too, so it is compiled with the others.
    every = replace(load([rule | {"enabled": True} for rule in own]), version=rules.version)
    stored: dict[str, str] | None = None
    if not Path(what).exists() and re.fullmatch(r"[0-9a-fA-F]{32}", what):
        frames, stored = _of_trace(home, every, what.lower())
        place = f"trace {what.lower()} in {home.root}"
    else:
        frames, place = _of_file(Path(what), config, every), what
    records = []
    for kind, frame in frames.items():
        for one in explain_frame(every, kind, frame.head(_MOST), off):
            records.append(_told(kind, one, stored, rules.version, all_rules=all_rules))
    records.sort(key=lambda record: record["time_unix_nano"])
    return {"source": place, "rules_version": rules.version, "records": records}


def _of_trace(
    home: Home, rules: RuleSet, trace_id: str
) -> tuple[dict[Kind, pl.DataFrame], dict[str, str]]:
    """The trace's frames, and the rules' version of each memory that is stored of it."""
    from engram.exporters.lake.attach import attach_read_only
    from engram.exporters.lake.frames import NEEDED, frames

    with contextlib.closing(attach_read_only(home)) as db:
        rows = {
            table: db.execute(
                f"SELECT {', '.join(columns)} FROM {table} "
                f"WHERE {'false' if table == 'metrics' else 'trace_id = $trace'} LIMIT {_MOST}",
                {} if table == "metrics" else {"trace": trace_id},  # points belong to no trace
            ).to_arrow_table()
            for table, columns in NEEDED.items()
        }
        if not any(table.num_rows for table in rows.values()):
            raise NotFound(
                f"no record of trace {trace_id} in {home.root}; a record can be queried about two "
                "seconds after it was sent"
            )
        hashes = [h for table in rows.values() for h in table["content_hash"].to_pylist()]
        stored = dict(
            db.execute(
                "SELECT id, rules_version FROM memories WHERE list_has_any(sources, ?::UBIGINT[])",
                [hashes],
            ).fetchall()
        )
    made = frames(rows, rules.wanted, rules.resource_wanted)
    return made, stored


def _of_file(path: Path, config: Config, rules: RuleSet) -> dict[Kind, pl.DataFrame]:
    """The file's frames, redacted as the pipeline would."""
    if not path.is_file():
        raise NotFound(
            f"{path} is no file, and no trace id (32 hex digits); "
            "engram rules explain TRACE_ID or FILE"
        )
    from engram.exporters.metrics import metric_frame
    from engram.exporters.otlp.decode import Decoder
    from engram.exporters.otlp.values import NoRedaction, Redact
    from engram.exporters.redact import RedactionConfig, Redactor

    settings = config.settings(ComponentKind.PROCESSOR, "redaction", Redaction)
    redact: Redact = NoRedaction()
    if settings is not None:
        redact = Redactor(RedactionConfig(**asdict(settings)))
    decoder = Decoder(redact, rules.wanted, rules.resource_wanted)
    for signal, body in requests_of(path):
        decoder.add(signal, body)
    if not len(decoder):
        raise BadRequest(f"{path} holds no record")
    records = decoder.finish()
    return {
        "span": records.span_frame, "span_event": records.event_frame, "log": records.log_frame,
        "metric": metric_frame(records.metrics, rules.wanted, rules.resource_wanted),
    }  # fmt: skip


def requests_of(path: Path) -> Iterator[tuple[Signal, bytes]]:
    """The requests in a file, in protobuf.

    Raises:
        BadRequest: something in it is no OTLP.
    """
    from engram.collector.otlp_files import MOST, OtlpFile
    from engram.exporters.otlp.check import check as valid
    from engram.exporters.otlp.json import to_protobuf

    file = OtlpFile(str(path))
    try:
        for record in file.records():
            place = f"{path}: {record.where}".removesuffix(": ")
            if record.problem:
                raise BadRequest(f"{place}: {record.problem}")
            if record.signal is None:
                continue
            body = record.body
            try:
                if record.is_json:
                    body = to_protobuf(record.signal, body, MOST)
                valid(record.signal, body)
            except BadRequest as error:
                raise BadRequest(f"{place}: {error}") from error
            yield record.signal, body
    finally:
        file.close()


def _told(
    kind: Kind, one: Explained, stored: dict[str, str] | None, version: str, *, all_rules: bool
) -> dict[str, Any]:
    record = one.record
    name = record.get("name") or record.get("event_name") or record.get("body_text") or ""
    time = record.get("start_time_unix_nano") or record.get("time_unix_nano")
    misses = [miss for miss in one.missed if all_rules or miss.closeness >= 0]
    if not all_rules:
        misses = [miss for miss in misses if miss.closeness > 0][:_CLOSEST] or misses[:1]
    made = []
    for memory in (one_made.memory | {"rule": one_made.rule} for one_made in one.made):
        of = {name: memory[name] for name in ("rule", "type", "id", "title", "index_as")}
        if stored is not None:
            known = stored.get(memory["id"])
            of["stored"] = known is not None
            of["stored_rules_version"] = known
        made.append(of)
    return {
        "record": kind,
        "name": str(name)[:120],
        "time_unix_nano": time or record.get("observed_time_unix_nano") or 0,
        "trace_id": record.get("trace_id"),
        "span_id": record.get("span_id"),
        "service": record.get("service_name"),
        "made": made,
        "not_made": [{"rule": miss.rule, "type": miss.type, "why": miss.why} for miss in misses],
    }


def write(told: dict[str, Any], out: TextIO) -> None:
    """The explanation for people."""
    for line in _lines(told):
        out.write(printable(line) + "\n")


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['source']}: rules {told['rules_version']}"
    old = False
    for record in told["records"]:
        yield ""
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
            microseconds=record["time_unix_nano"] // 1000
        )
        kind = words.signals([record["record"]])
        yield f"{at:%Y-%m-%d %H:%M:%S} {kind} {record['name']!r} ({record['service'] or '-'})"
        for memory in record["made"]:
            note = ""
            if memory.get("stored") is False:
                note, old = "  (not stored)", True
            elif memory.get("stored_rules_version", told["rules_version"]) != told["rules_version"]:
                note, old = "  (stored by older rules)", True
            made = f"{memory['type']} {memory['id']} by {memory['rule']}"
            yield f"  + {made}: {memory['title']}{note}"
        if not record["made"]:
            yield "  no memory"
        for miss in record["not_made"]:
            of = f" ({miss['type']})" if miss["type"] and miss["type"] != miss["rule"] else ""
            yield f"  - {miss['rule']}{of}: {miss['why']}"
    if old:
        yield ""
        yield "The lake's memories were made by other rules; engram rederive rebuilds them."


__all__ = ["explain", "listed", "table", "write", "write_list"]
