"""A report as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Kind, Report, Verdict

_NAMES = {
    Kind.ROUTE: "routes",
    Kind.NODE: "graph nodes",
    Kind.LLM: "LLM calls",
    Kind.JOB: "background jobs",
    Kind.EXCEPT: "except blocks",
    Kind.DECISION: "decision points",
}


def lines(report: Report, *, all_: bool = False) -> Iterator[str]:
    """The table of coverage, then what leaves no memory or too little; `all_`: everything."""
    yield f"{'':16}{'found':>7}{'zero code':>11}{'explicit':>10}{'partial':>9}{'none':>6}  coverage"
    for kind in Kind:
        verdicts = [one.verdict for one in report.findings if one.kind is kind]
        counts = [verdicts.count(verdict) for verdict in Verdict]
        yield _row(_NAMES[kind], len(verdicts), counts, report.coverage(kind))
    verdicts = [one.verdict for one in report.findings]
    counts = [verdicts.count(verdict) for verdict in Verdict]
    yield _row(f"{report.files} files", len(verdicts), counts, report.coverage())
    for title, verdict in (
        ("leaves no memory", Verdict.NONE),
        ("leaves a part only", Verdict.PARTIAL),
        ("by an explicit call", Verdict.EXPLICIT),
        ("with zero code", Verdict.ZERO_CODE),
    ):
        found = [one for one in report.findings if one.verdict is verdict]
        if not found or (not all_ and verdict in (Verdict.EXPLICIT, Verdict.ZERO_CODE)):
            continue
        yield ""
        yield f"{title}:"
        for one in found:
            yield f"  {one.file}:{one.line}  {one.kind}  {one.name}: {one.why}"
            if one.do:
                yield f"      {one.do}"
    if report.unread:
        yield ""
        yield "could not be read:"
        for file, reason in report.unread:
            yield f"  {file}: {reason}"


def _row(name: str, found: int, counts: list[int], share: float | None) -> str:
    zero, explicit, partial, none = counts
    told = "-" if share is None else f"{share:.0f} %"
    return f"{name:16}{found:>7}{zero:>11}{explicit:>10}{partial:>9}{none:>6}  {told}"
