"""`engram`: the command line.

Only light parts of the standard library are imported here; every command imports what it needs.
`engram --help` costs the start of Python and no more, and a test bans the rest.
Exit codes are documented in `docs/cli.md`, and made in one place: `_fail`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from engram.exporters.errors import (
    BadRequest,
    ConfigError,
    EngramError,
    HomeBusy,
    NotFound,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from engram.collector.config import Config
    from engram.collector.roles.process import Supervised
    from engram.exporters.home import Home

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
BUSY: Final = 4
INTERRUPTED: Final = 130

_CODES = """exit codes:
  0    done
  1    failed
  2    wrong usage, configuration or query
  3    not found: no lake in this home, no such file
  4    home busy (another collector writes to it), or no collector is running
  130  interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. The entry point of the `engram` script."""
    try:
        # Not as defaults of the parser: those would undo an option that stands before the command.
        start = argparse.Namespace(home=None, config=None, set=None, json=False)
        options = _parser().parse_args(arguments, start)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else USAGE
    if getattr(options, "ready_fd", None) is not None:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to answer
    try:
        code = _COMMANDS[options.command](options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) had enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # how DuckDB says it
            return INTERRUPTED
        failed = _fail(error, as_json=options.json)
        if failed is None:
            raise
        return failed
    return code


def _fail(error: Exception, *, as_json: bool) -> int | None:
    """The one map of errors to exit codes and messages; None for what is a bug of ours."""
    from engram.collector.control import NotRunning

    text, code = str(error), FAILED
    if isinstance(error, ConfigError | BadRequest):
        code = USAGE
    elif isinstance(error, NotFound):
        code = NOT_FOUND
    elif isinstance(error, HomeBusy | NotRunning):
        code = BUSY
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("engram"):
        text = f'this needs the package {error.name}: pip install "engram[server]"'
    elif _is_duckdb(error, "ProgrammingError", "NotSupportedError", "DataError"):
        from engram.collector.query import explained

        text, code = explained(error), USAGE
    elif not isinstance(error, EngramError | OSError) and not _is_duckdb(error, "Error"):
        return None
    if as_json:
        import json

        kind = type(error).__name__
        body: dict[str, object] = {"type": kind, "message": text, "exit_code": code}
        if isinstance(error, ConfigError):
            body["problems"] = error.problems
        print(json.dumps({"error": body}), file=sys.stderr)
    else:
        print(f"engram: {text}", file=sys.stderr)
    return code


def _is_duckdb(error: Exception, *names: str) -> bool:
    duckdb = sys.modules.get("duckdb")
    return duckdb is not None and any(isinstance(error, getattr(duckdb, name)) for name in names)


# -- arguments -------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what was meant, besides what is wrong."""

    def error(self, message: str) -> NoReturn:
        """See `argparse`."""
        found = re.match(r"argument [^:]+: invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if found:
            import difflib

            near = difflib.get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), n=1)
            if near:
                message = f"there is no {found[1]!r}; did you mean {near[0]}?"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    # SUPPRESS: an option before the command is not undone by its absence after it.
    common.add_argument(
        "--home", metavar="DIR", default=argparse.SUPPRESS, help="home (ENGRAM_HOME, ./.engram)"
    )
    common.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=argparse.SUPPRESS,
        help="pipeline (ENGRAM_CONFIG, ./otel-config.yaml, built-in); again: merged over it",
    )
    common.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=argparse.SUPPRESS,
        help="over the files, such as processors.batch.timeout=2s (repeatable)",
    )
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON"
    )
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="engram",
        description="Turns OpenTelemetry into durable, typed, queryable memory.",
        epilog=_CODES,
        formatter_class=raw,
        parents=[common],
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, help_: str, description: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=help_,
            description=description or help_[0].upper() + help_[1:] + ".",
            parents=[common],
            formatter_class=raw,
        )

    add("up", "run everything: collect, learn and serve, kept alive")
    run = add("run", "start a Python program with everything captured", _RUN_HELP)
    run.add_argument(
        "--endpoint", metavar="URL", default="", help="collector (http://127.0.0.1:4318)"
    )
    run.add_argument("--service", metavar="NAME", default="", help="name (from the command)")
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="-- CMD ...", help="what to run")
    for role, help_ in (
        ("collect", "take OTLP and write the lake"),
        ("learn", "keep the search index from the lake"),
        ("serve", "the page and the REST API, on loopback"),
    ):
        one = add(role, help_)
        one.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    sql = add("sql", "query the lake, also while it is being written", _SQL_HELP)
    sql.add_argument(
        "query", nargs="?", help='one SELECT; "-" or a pipe: statements from stdin; none: a prompt'
    )
    sql.add_argument("--csv", action="store_true", help="answer as comma-separated values")
    sql.add_argument(
        "--limit", type=_rows, metavar="N", help="rows of an answer (prompt: 200; else all: 0)"
    )
    search = add("search", "find memories by meaning and words")
    search.add_argument("query", help="what to look for")
    search.add_argument(
        "--type", action="append", dest="types", metavar="TYPE", help="only this type (repeatable)"
    )
    search.add_argument("--service", metavar="NAME", help="only from this service")
    search.add_argument("--user", metavar="ID", help="only of this user")
    search.add_argument("--session", metavar="ID", help="only of this session")
    search.add_argument("--since", metavar="TIME", help="not before: 2h, 3d, 2026-11-22, ISO 8601")
    search.add_argument("--until", metavar="TIME", help="before")
    search.add_argument("--min-importance", metavar="N", help="0 to 1: errors are 0.7 and more")
    search.add_argument("--limit", type=_positive, default=10, metavar="N", help="at most (10)")
    search.add_argument("--explain", action="store_true", help="why each was found")
    show = add("show", "one memory, and what belongs to it")
    show.add_argument("memory", metavar="MEMORY_ID", help="its id, or the first six digits of it")
    show.add_argument(
        "--seconds", type=_positive, default=300, metavar="N", help="look so far around it (300)"
    )
    show.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="entries of each list (20)"
    )
    reindex = add("reindex", "build the search index again, while it is searched", _REINDEX_HELP)
    reindex.add_argument("--model", metavar="NAME", help="builtin, a folder, or OWNER/NAME")
    tail = add("tail", "what comes in, as it comes (Ctrl-C ends it)", _TAIL_HELP)
    kinds = tail.add_mutually_exclusive_group()
    for kind in ("memories", "spans", "logs"):
        kinds.add_argument(
            f"--{kind}",
            action="store_const",
            dest="kind",
            const=kind,
            default="memories",
            help=f"show {kind}" + (" (the default)" if kind == "memories" else ""),
        )
    tail.add_argument(
        "--type", action="append", dest="types", metavar="TYPE", help="only this type (repeatable)"
    )
    tail.add_argument("--service", metavar="NAME", help="only from this service")
    tail.add_argument("--errors", action="store_true", help="only what went wrong")
    tail.add_argument(
        "-n", type=_count, default=10, dest="last", metavar="N", help="begin with the last N (10)"
    )
    tail.add_argument(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with what comes (the default), or end after the last N",
    )
    import_ = add("import", "OTLP files into the lake", _IMPORT_HELP)
    import_.add_argument("files", nargs="+", metavar="FILE", help='a file; "-" is stdin')
    import_.add_argument(
        "--format",
        choices=["auto", "json", "jsonl", "proto"],
        default="auto",
        help="what is in the files (auto: looked at)",
    )
    import_.add_argument(
        "--signal",
        choices=["traces", "logs", "metrics"],
        help="what is in the files, where they do not say it themselves",
    )
    import_.add_argument("--strict", action="store_true", help="stop at the first bad record")
    mcp = add("mcp", "memory for agents, by the Model Context Protocol over stdio", _MCP_HELP)
    mcp.add_argument("--read-only", action="store_true", help="without the tools that write")
    mcp.add_argument("--skill", action="store_true", help="print SKILL.md, and end")
    add("status", "what runs, and what is stored")
    add("flush", "wait until everything acknowledged so far can be queried")
    add("compact", "merge small files of the lake now")
    again = add("rederive", "rebuild memories from the telemetry, after the rules changed")
    again.add_argument(
        "--since", metavar="TIME", help="only of telemetry received since: 7d, 2h, 2026-11-20"
    )
    again.add_argument(
        "--type", action="append", dest="types", metavar="TYPE", help="only this type (repeatable)"
    )
    again.add_argument("--dry-run", action="store_true", help="count, and change nothing")
    rules = add("rules", "which rule makes which memory, and why not another", _RULES_HELP)
    rules.add_argument(
        "action", choices=["list", "explain", "table"], metavar="list|explain", help="what to do"
    )
    rules.add_argument("what", nargs="?", metavar="TRACE_ID|FILE", help="explain: what to explain")
    rules.add_argument(
        "--all", action="store_true", dest="all_", help="explain: every rule, not the closest"
    )
    known = add(
        "known", "whether an error was seen before, how often, and what helped", _KNOWN_HELP
    )
    known.add_argument("text", nargs="?", metavar="TEXT|-", help="stack trace, message or type")
    known.add_argument("--type", metavar="TYPE", help="type of the exception")
    known.add_argument("--message", metavar="TEXT", help="its message")
    known.add_argument("--file", metavar="PATH", help="alone: all errors of this source file")
    known.add_argument("--service", metavar="NAME", help="only of this service")
    known.add_argument("--limit", type=_positive, default=5, metavar="N", help="errors (5)")
    jobs = add("jobs", "the jobs that learn: what they are, how they went, run them now")
    jobs.add_argument("action", choices=["list", "run"], help="what to do")
    jobs.add_argument("name", nargs="?", metavar="NAME", help="run: only this one")
    jobs.add_argument(
        "--since", metavar="TIME", help="run: look at everything since: 7d, 2h, 2026-11-20"
    )
    report = add("report", "the learnings of a day or a week", _REPORT_HELP)
    report.add_argument(
        "--date", metavar="DAY", help="2026-11-22 (yesterday in UTC; today when there is no more)"
    )
    report.add_argument("--week", action="store_true", help="the seven days up to that day")
    report.add_argument("--html", metavar="FILE", help="write one self-contained HTML file")
    report.add_argument(
        "--base-url", metavar="URL", default="http://127.0.0.1:4319", help="of evidence links"
    )
    add("predictions", "what was predicted, whether it came true, and how good that is")
    alerts = add("alerts", "send a test message to every hook, and say what came back")
    alerts.add_argument("action", choices=["test"], help="what to do")
    lab = add("lab", "run a method of learning as a filter, on data of your own", _LAB_HELP)
    lab.add_argument(
        "method",
        metavar="METHOD",
        help="anomalies, changepoints, forecast, patterns, recall, rootcause, similar",
    )
    config = add("config", "check the configuration, and show what is in effect")
    config.add_argument("action", choices=["validate"], help="what to do")
    audit = add("audit", "what of a code base leaves a memory, and what none", _AUDIT_HELP)
    audit.add_argument("path", metavar="PATH", help="a folder or a file of Python code")
    audit.add_argument(
        "--min-coverage", type=_percent, metavar="PERCENT", help="less than this is exit code 1"
    )
    audit.add_argument("--tests", action="store_true", help="read tests too")
    audit.add_argument("--all", action="store_true", dest="all_", help="also what leaves a memory")
    token = add("token", "who may ask, write and send: make, list and revoke tokens", _KEYS_HELP)
    token.add_argument("action", choices=["create", "list", "revoke"], help="what to do")
    token.add_argument("which", nargs="?", metavar="NAME|ID", help="revoke: which")
    token.add_argument("--scope", metavar="A,B", help="create: ingest, browser, read, write, admin")
    token.add_argument("--name", metavar="NAME", help="create: what it is called")
    token.add_argument("--expires", metavar="TIME", help="create: 90m, 12h, 30d, 4w (never)")
    token.add_argument("--service", metavar="NAME", help="create: of this service only")
    log = add("audit-log", "who looked at what by REST and MCP, and whether the log is whole")
    log.add_argument("--verify", action="store_true", help="look at every line; 1: it is broken")
    log.add_argument("--who", metavar="NAME", help="only of this token, or local")
    log.add_argument("--memory", metavar="ID", help="only where this memory was given out")
    log.add_argument(
        "-n", type=_count, default=20, dest="last", metavar="N", help="the last N (20)"
    )
    doctor = add("doctor", "whether an app is captured, and what it sends arrives", _DOCTOR_HELP)
    doctor.add_argument("--python", metavar="PATH", help="the interpreter of the app")
    doctor.add_argument("program", nargs=argparse.REMAINDER, metavar="-- CMD", help="of the app")
    add("version", "the versions of Engram and its parts")
    return parser


_RUN_HELP = """Start a Python program with everything captured, and with no change to it.

  engram run -- uvicorn app:app --reload
  engram run --service shop -- python shop.py
  engram run -- celery -A tasks worker

Needs no more than `pip install engram`. The environment wins over every default: OTEL_* variables,
ENGRAM_CAPTURE_CONTENT=false for no prompts and answers. The exit code is the program's; 127: there
is no such program, 126: it cannot be started.
"""

_REINDEX_HELP = """Build the search index again from the lake, while the old one is searched.

Done by `engram learn` when it runs, else here. With --model the vectors are made by another model:
"builtin", the folder of a sentence-transformers model, or OWNER/NAME of the Hugging Face hub (which
is fetched if it is not on this machine). The index keeps its model until the next --model.
"""

_REPORT_HELP = """What was learned: what changed since the day before, with numbers and evidence.

  engram report                          yesterday, as markdown
  engram report --date 2026-11-22 --html report.html
  engram report --week --json
"""

_SQL_HELP = """Query the lake read-only, also while it is being written.

tables and views: spans, logs, metrics, memories, requests, links, conversations,
conversation_turns, one view for each memory type;
error_context(ID), memory_context(ID), conversation(ID)
  engram sql "SELECT type, count(*) FROM memories GROUP BY type"
  engram sql "SHOW TABLES"
  engram sql < queries.sql
  engram sql              a prompt with history and completion; .help helps
"""

_LAB_HELP = """Run a method of learning as a filter from stdin to stdout, as the product runs it.

  engram lab patterns < app.log     a message per line in, `id<TAB>template` per line out
  engram lab similar                JSON lines: {op: "index", traces: [...]}, then
                                    {op: "search", trace, scope, k} gives {ids, scores}
  engram lab changepoints           {id, values} gives {id, changepoints: [index]}
  engram lab forecast               {id, values, step_s, horizon} gives {id, mean, lo90, hi90}
  engram lab anomalies              {id, timestamps, values} gives {id, scores}, 0 to 1
  engram lab rootcause              {id, graph: [[caller, callee]], times, incident: [start, end],
                                    metrics: {component: {name: [...]}}, target} gives
                                    {id, ranked, scores, unclear}
  engram lab recall                 {op: "index", docs: [{id, text, scope, ts}]}, then
                                    {op: "search", text, k, scope} gives {ids, scores}
"""

_MCP_HELP = """Memory for agents, by the Model Context Protocol over standard input and output.

`engram serve` has the same at http://127.0.0.1:4319/mcp, for agents that need not start anything.
  claude mcp add engram -- engram --home /path/.engram mcp
  engram mcp --skill > SKILL.md
"""

_RULES_HELP = """Which rule makes which memory, and why not another.

  engram rules list                    every rule, built-in and yours
  engram rules explain TRACE_ID        the records of a trace in the lake
  engram rules explain FILE            a file of OTLP, JSON or protobuf; nothing is stored
"""


_TAIL_HELP = """Show the last memories, and then each new one about a second after it happened.

One line each: time (UTC), type, service, title, outcome and duration; --json: one object each.
  engram tail --errors
  engram tail --type ai_response --service shop
  engram tail --spans -n 50 --no-follow
"""


_DOCTOR_HELP = """Look at the app's interpreter, its environment, the ports and the collector.

One line each: ok, warning or problem, and what to do. One log record is sent there and back.
  engram doctor
  engram doctor -- uvicorn app:app
  engram doctor --python venv/bin/python

exit code 1: there is a problem
"""

_KNOWN_HELP = """Whether an error was seen before, how often, since when, and what helped.

It is the same error when the same type was raised in the same function of your own code: another
message, line or path makes no other one. Without a stack: the same type and masked message.
  python app.py 2>&1 | engram known -
  engram known "TimeoutError: no answer after 3000 ms"
  engram known --file shop/pay.py

exit code 3: not seen
"""

_KEYS_HELP = """Make, list and revoke tokens. A token is shown once; only a hash of it is kept.

  engram token create --scope read,write --name assistant --expires 30d
  engram token create --scope ingest      for OTEL_EXPORTER_OTLP_HEADERS of another machine
  engram token list
  engram token revoke assistant           works at once, in every running process

As soon as there is a token for reading or writing, the page and REST ask for one.
"""

_AUDIT_HELP = """Read Python code, run nothing of it, and say with file and line what is remembered.

Routes, LangGraph nodes, LLM calls, background jobs, except blocks and decision points: under
`engram run` without a change, by an explicit call, in part (counts half), or not at all.
  engram audit src
  engram audit --min-coverage 80 src      for CI: exit code 1 below
  engram audit --home .engram src         also what was never seen at run time (engram[server])
"""


def _percent(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError("must be between 0 and 100")
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 10_000:
        raise argparse.ArgumentTypeError("must be between 0 and 10000")
    return number


_IMPORT_HELP = """Store OTLP files, by the collector that runs in the home, else alone.

JSON lines and length-prefixed protobuf as the Collector's file exporter writes them, or one
request a file; plain, gzip or zstd. What is stored already is not stored again, so an import that
broke off is simply run again. A bad record is said with its place, and the rest is stored.
  engram import telemetry.jsonl
  engram import --strict traces.pb logs.pb.zst

exit code 1: something was bad or rejected, the rest is stored
"""


def _rows(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 (all) or more")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must be between 1 and 1000")
    return number


def _config(options: argparse.Namespace) -> Config:
    from engram.collector.config import find_files, load

    return load(find_files(options.config), settings=options.set or ())


def _home(options: argparse.Namespace, config: Config | None = None) -> Home:
    """The home of --home, ENGRAM_HOME, the configuration, or ./.engram; the first that says one."""
    from engram.exporters.home import Home

    if options.home or os.environ.get("ENGRAM_HOME"):
        return Home.find(options.home)
    if config is None and _has_config(options):
        config = _config(options)
    if config is not None:
        from engram.collector.component import Kind
        from engram.collector.registry import MemoryExporter

        memory = config.settings(Kind.EXPORTER, "memory", MemoryExporter)
        return Home.find(memory.path if memory else None)
    return Home.find()


def _has_config(options: argparse.Namespace) -> bool:
    return bool(
        options.config
        or options.set
        or os.environ.get("ENGRAM_CONFIG")
        or os.path.isfile("otel-config.yaml")
    )


# -- roles -----------------------------------------------------------------------------------------


def _up(options: argparse.Namespace) -> int:
    from engram.collector.roles.up import Supervisor

    arguments: list[str] = []
    if options.home:
        arguments += ["--home", os.path.abspath(options.home)]
    for path in options.config or ():
        arguments += ["--config", os.path.abspath(path)]
    for setting in options.set or ():
        arguments += ["--set", setting]
    return Supervisor(arguments, home=options.home, as_json=options.json).run()


def _run(options: argparse.Namespace) -> int:
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise BadRequest("what should be run? engram run -- uvicorn app:app")
    from engram.instrumentation.run import run

    return run(program, endpoint=options.endpoint, service=options.service)


def _supervised(options: argparse.Namespace) -> Supervised:
    from engram.collector.roles.process import Supervised

    return Supervised(options.ready_fd)


def _collect(options: argparse.Namespace) -> int:
    config = _config(options)
    home = _home(options, config)
    from engram.collector.roles.collect import run

    return run(home, config, _supervised(options))


def _learn(options: argparse.Namespace) -> int:
    config = _config(options)
    home = _home(options, config)
    from engram.collector.roles.learn import run

    return run(home, _supervised(options), config)


def _serve(options: argparse.Namespace) -> int:
    config = _config(options)
    home = _home(options, config)
    from engram.collector.itself import records, serve_teller
    from engram.collector.registry import Api
    from engram.collector.roles.serve import run

    teller = serve_teller(home) if records(config) else None
    return run(home, config.api or Api(), _supervised(options), config.log_level, teller=teller)


# -- questions -------------------------------------------------------------------------------------


def _sql(options: argparse.Namespace) -> int:
    from engram.collector import query
    from engram.collector.output import write_limited

    mode = "json" if options.json else "csv" if options.csv else "table"
    home = _home(options)
    if options.query is None and sys.stdin.isatty() and sys.stdout.isatty():
        from engram.collector import shell

        limit = shell.LIMIT if options.limit is None else options.limit
        shell.run(home, mode=mode, limit=limit)
        return OK
    with query.reader(home) as connection:
        if options.query in (None, "-"):
            from engram.collector.statements import split

            statements = split(sys.stdin)
        else:
            statements = iter([options.query])
        for statement in statements:
            result = query.run(connection, statement)
            write_limited(result, sys.stdout, mode, options.limit or 0)
            sys.stdout.flush()
    return OK


def _search(options: argparse.Namespace) -> int:
    from engram.collector.find import find, importance, moment
    from engram.collector.output import dumps, write_answer
    from engram.collector.types import checked

    home, least = _home(options), options.min_importance
    filters = {
        "types": checked(home, options.types),
        "service": options.service,
        "user_id": options.user,
        "session_id": options.session,
        "since_ns": None if options.since is None else moment(options.since),
        "until_ns": None if options.until is None else moment(options.until),
        "min_importance": None if least is None else importance(least),
    }
    answer = find(home, options.query, limit=options.limit, filters=filters)
    if answer["note"]:
        print(f"engram: {answer['note']}", file=sys.stderr)
    if options.json:
        print(dumps(answer if options.explain else answer["hits"]))
    else:
        write_answer(answer, sys.stdout, explain=options.explain)
    return OK


def _reindex(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from engram.collector.output import dumps
    from engram.learning.reindex import Progress, reindex

    terminal = sys.stderr.isatty()

    def say(progress: Progress) -> None:
        share = f"{progress.read:,} of {progress.total:,} memories, model {progress.model}"
        end = "\r" if terminal and progress.state == "building" else "\n"
        print(f"{progress.state}: {share}", end=end, file=sys.stderr, flush=True)

    done = reindex(_home(options), options.model, say)
    if options.json:
        print(dumps(asdict(done)))
    return OK


def _show(options: argparse.Namespace) -> int:
    from engram.collector import query
    from engram.collector.output import dumps
    from engram.collector.show import write_context
    from engram.learning.context import context

    with query.reader(_home(options)) as lake:
        told = context(lake, options.memory, seconds=options.seconds, most=options.limit)
    if options.json:
        print(dumps(told))
    else:
        write_context(told, sys.stdout)
    return OK


def _import(options: argparse.Namespace) -> int:
    from engram.collector.import_ import Options, exit_code, run
    from engram.collector.output import dumps, write_status
    from engram.collector.roles.process import set_up_log
    from engram.exporters.signals import Signal

    config = _config(options)
    set_up_log("warn")
    how = Options(
        format=options.format,
        signal=Signal(options.signal) if options.signal else None,
        strict=options.strict,
    )
    counts = run(_home(options, config), config, options.files, how, sys.stderr)
    if options.json:
        print(dumps(counts.facts()))
    else:
        write_status(counts.facts(), sys.stdout)
    return exit_code(counts)


def _mcp(options: argparse.Namespace) -> int:
    from engram.collector.mcp.command import run

    return run(_home(options), read_only=options.read_only, skill=options.skill)


def _tail(options: argparse.Namespace) -> int:
    from engram.collector.tail import Selection, run

    if options.types and options.kind != "memories":
        raise BadRequest(f"--type is about memories; {options.kind} have none")
    selection = Selection(
        kind=options.kind,
        types=tuple(options.types or ()),
        service=options.service,
        errors=options.errors,
        last=options.last,
    )
    run(_home(options), selection, follow=options.follow, as_json=options.json, out=sys.stdout)
    return OK


def _status(options: argparse.Namespace) -> int:
    from engram.collector.output import dumps, write_status
    from engram.collector.status import status

    facts = status(_home(options))
    if options.json:
        print(dumps(facts))
    else:
        write_status(facts, sys.stdout)
    return OK


def _ask(options: argparse.Namespace) -> int:
    from engram.collector.control import ask
    from engram.collector.output import dumps, write_status

    answer = ask(_home(options), options.command, timeout_s=120.0)
    if options.json:
        print(dumps(answer))
    else:
        write_status(answer, sys.stdout)
    return OK


def _rederive(options: argparse.Namespace) -> int:
    import shutil

    from engram.collector import rederive
    from engram.exporters.rederive import Selection

    config = _config(options)
    home = _home(options, config)
    since = rederive.since(options.since) if options.since else None
    selection = Selection(since_ns=since, types=tuple(options.types or ()))
    live = sys.stderr.isatty() and not options.json

    def progress(what: str, done: int, total: int) -> None:
        if live:
            line = f"{what} {done} of {total}"
            print(f"\r{line:<{shutil.get_terminal_size().columns - 1}}", end="", file=sys.stderr)

    outcome = rederive.run(home, config, selection, dry_run=options.dry_run, progress=progress)
    if live:
        progress("", 0, 0)
        print("\r", end="", file=sys.stderr)
    told = rederive.facts(outcome, dry_run=options.dry_run)
    if options.json:
        import json

        print(json.dumps(told))
    else:
        for line in rederive.lines(told):
            print(line)
    return FAILED if outcome.unsettled else OK


def _rules(options: argparse.Namespace) -> int:
    from engram.collector import explain
    from engram.collector.output import dumps

    if options.action == "table":
        print(explain.table(), end="")
        return OK
    config = _config(options)
    if options.action == "list":
        listed = explain.listed(config)
        if options.json:
            print(dumps(listed))
        else:
            explain.write_list(listed, sys.stdout)
        return OK
    if not options.what:
        raise BadRequest("say what to explain: engram rules explain TRACE_ID, or a file of OTLP")
    told = explain.explain(_home(options, config), config, options.what, all_rules=options.all_)
    if options.json:
        print(dumps(told))
    else:
        explain.write(told, sys.stdout)
    return OK


def _known(options: argparse.Namespace) -> int:
    from engram.collector import known
    from engram.collector.output import dumps

    found = known.find(
        _home(options), options.text, error_type=options.type, message=options.message,
        file=options.file, service=options.service, limit=options.limit,
    )  # fmt: skip
    if options.json:
        print(dumps(known.told(found)))
    else:
        known.write(found, sys.stdout)
    return NOT_FOUND if found.match == "none" else OK


def _jobs(options: argparse.Namespace) -> int:
    from engram.collector import jobs
    from engram.collector.output import dumps

    home = _home(options)
    if options.action == "list":
        told = jobs.listed(home)
    else:
        told = jobs.run(home, options.name, options.since, _config(options))
    if options.json:
        print(dumps(told))
    else:
        for line in jobs.lines(told):
            print(line)
        if options.action != "run":
            for line in jobs.changed(home):
                print(line)
    return FAILED if any(one.get("error") for one in told) and options.action == "run" else OK


def _report(options: argparse.Namespace) -> int:
    from engram.collector.output import dumps
    from engram.collector.report import facts, report, write_html
    from engram.learning.report import markdown

    told = report(_home(options), options.date, week=options.week)
    if options.html:
        print(f"engram: wrote {write_html(told, options.html, options.base_url)}", file=sys.stderr)
    if options.json:
        print(dumps(facts(told)))
    elif not options.html:
        print(markdown(told, options.base_url), end="")
    return OK


def _predictions(options: argparse.Namespace) -> int:
    from engram.collector import predictions, query
    from engram.collector.output import dumps

    with query.reader(_home(options)) as lake:
        told = predictions.told(lake)
    if options.json:
        print(dumps(told))
    else:
        for line in predictions.lines(told):
            print(line)
    return OK


def _alerts(options: argparse.Namespace) -> int:
    from engram.collector import alerts
    from engram.collector.output import dumps

    told = alerts.try_out(_config(options))
    if options.json:
        print(dumps(told))
    else:
        for line in alerts.lines(told):
            print(line)
    return OK if all(one["ok"] for one in told) else FAILED


def _lab(options: argparse.Namespace) -> int:
    from engram.learning import lab

    lab.run(options.method, sys.stdin.buffer, sys.stdout.buffer)
    return OK


def _config_command(options: argparse.Namespace) -> int:
    config = _config(options)
    from engram.collector.component import Kind
    from engram.collector.config import check_rules
    from engram.collector.effective import effective
    from engram.collector.registry import factories

    check_rules(config)

    files: list[Path] = list(config.files)
    used = [
        {"kind": kind.singular, "id": str(at), "summary": factories(kind)[at.type].summary}
        for kind in Kind
        for at in config.used(kind)
    ]
    if options.json:
        import json

        names = [str(file) for file in files]
        facts = {"file": names[0], "files": names, "valid": True, "components": used}
        print(json.dumps({**facts, "config": effective(config)}))
        return OK
    import yaml

    print(f"# {' + '.join(str(file) for file in files)} is valid; what runs:")
    for one in used:
        print(f"#   {one['kind']:10} {one['id']:20} {one['summary']}")
    print("# what is in effect, defaults included, secrets masked:")
    print(yaml.safe_dump(effective(config), sort_keys=False, allow_unicode=True), end="")
    return OK


def _audit(options: argparse.Namespace) -> int:
    from pathlib import Path

    from engram.instrumentation.audit import audit, lines

    path = Path(options.path)
    if not path.exists():
        raise NotFound(f"no such file or folder: {path}")
    report = audit(path, tests=options.tests)
    share = report.coverage()
    least = options.min_coverage
    below = least is not None and share is not None and share < least
    facts = report.facts()
    told = list(lines(report, all_=options.all_))
    if options.home or os.environ.get("ENGRAM_HOME"):
        from engram.collector import seen

        found = seen.seen(_home(options), report)
        facts["run_time"] = [one.facts() for one in found]
        told += seen.lines(found)
    if options.json:
        import json

        print(json.dumps({**facts, "min_coverage": least}))
    else:
        print("\n".join(told))
        if below:
            print(f"engram: coverage is {share:.1f} %, less than {least:g} %", file=sys.stderr)
    return FAILED if below else OK


def _token(options: argparse.Namespace) -> int:
    from engram.collector.access import Vault
    from engram.collector.access.listing import token_lines
    from engram.collector.access.scopes import scopes_of
    from engram.collector.access.tokens import lifetime
    from engram.collector.output import dumps

    vault = Vault(_home(options))
    if options.action == "create":
        secret, made = vault.create(
            scopes_of(options.scope or ""),
            name=options.name,
            expires_s=lifetime(options.expires) if options.expires else None,
            service=options.service,
        )
        if options.json:
            print(dumps({"token": secret, "id": made.id, "name": made.name}))
        else:
            print(secret)
            print(f"engram: token {made.name}; it is not shown again", file=sys.stderr)
        return OK
    if options.action == "revoke":
        if not options.which:
            raise BadRequest("which token? engram token list shows them")
        gone = vault.revoke(options.which)
        print(dumps([one.name for one in gone]) if options.json else f"revoked {len(gone)}")
        return OK
    listed = vault.listed()
    if options.json:
        print(dumps(listed))
    else:
        print("\n".join(token_lines(listed)))
    return OK


def _audit_log(options: argparse.Namespace) -> int:
    from collections import deque

    from engram.collector.access.audit import entries, verify
    from engram.collector.access.listing import audit_line
    from engram.collector.output import dumps

    home = _home(options)
    if options.verify:
        verdict = verify(home)
        if options.json:
            print(
                dumps({"lines": verdict.lines, "problems": verdict.problems, "last": verdict.last})
            )
        else:
            for problem in verdict.problems:
                print(problem)
            whole = "is broken" if verdict.problems else "is whole"
            print(f"the chain of {verdict.lines} lines {whole}; the last hash is {verdict.last}")
        return FAILED if verdict.problems else OK
    found = (
        one
        for one in entries(home)
        if (options.who is None or one.get("who") == options.who)
        and (options.memory is None or options.memory in one.get("ids", ()))
    )
    for one in deque(found, options.last):
        print(dumps(one) if options.json else audit_line(one))
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from engram.instrumentation.doctor import Level, examine

    command = options.program[1:] if options.program[:1] == ["--"] else options.program
    if command and options.python:
        raise BadRequest("--python or a command, not both")
    found, worst = [], OK
    for one in examine(command, python=options.python, stored=_stored(options)):
        worst = FAILED if one.level is Level.PROBLEM else worst
        if options.json:
            found.append(one.facts())
            continue
        print(f"{one.level:8} {one.about}: {one.text}", flush=True)
        if one.do:
            print(f"{'':8} -> {one.do}")
    if options.json:
        import json

        print(json.dumps({"healthy": worst == OK, "findings": found}))
    return worst


def _stored(options: argparse.Namespace) -> Callable[[str], bool | None]:
    """Whether the lake of this home has a log record with a marker; None: nobody can say."""

    def stored(marker: str) -> bool | None:
        try:
            from engram.collector import query
            from engram.instrumentation.doctor import MARKER

            home = _home(options)
            if not (home.root / "collect.lock").exists():
                return None
            with query.reader(home) as lake:
                asked = f"SELECT count(*) FROM logs WHERE (attributes ->> '$.\"{MARKER}\"') = ?"
                row = lake.execute(asked, [marker]).fetchone()
            return bool(row and row[0])
        except NotFound:  # the first commit makes the lake
            return False
        except (ModuleNotFoundError, EngramError, OSError):
            return None

    return stored


def _version(options: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    names = ("engram", "duckdb", "lancedb", "polars", "pyarrow", "opentelemetry-sdk")
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if options.json:
        import json

        print(json.dumps(found))
        return OK
    for name in (*names, "python"):
        print(f"{name} {found[name] or 'not installed'}")
    return OK


_COMMANDS: Final = {
    "up": _up,
    "run": _run,
    "collect": _collect,
    "learn": _learn,
    "serve": _serve,
    "sql": _sql,
    "search": _search,
    "show": _show,
    "reindex": _reindex,
    "import": _import,
    "tail": _tail,
    "mcp": _mcp,
    "status": _status,
    "flush": _ask,
    "compact": _ask,
    "rederive": _rederive,
    "rules": _rules,
    "jobs": _jobs,
    "known": _known,
    "report": _report,
    "predictions": _predictions,
    "alerts": _alerts,
    "lab": _lab,
    "config": _config_command,
    "audit": _audit,
    "token": _token,
    "audit-log": _audit_log,
    "doctor": _doctor,
    "version": _version,
}

if __name__ == "__main__":
    sys.exit(main())
