"""What models and tools are asked twice, what they are sent again, and what could be kept.

* **same_prompt**: the same model gets the very same messages again within a run, one after the
  other. Several at the same time are a vote on purpose.
* **same_tool_call**: a tool gets equal arguments again within a run and gives the same result, and
  no tool failed in between or was called that by its name may write: tests that fail again after
  an edit were worth running.
* **cacheable**: across traces, a tool or a model asked the same gives the same answer within an
  hour, nearly always, and takes 50 ms or more: less, and a cache costs about as much as it saves.
  Not a tool that by its name does something: `send_reminder` answers "ok" each time.
* **context_sent_again**: a call's messages begin with at least half of what the call before it (of
  the same model and service, within five minutes, which is how long providers usually keep a
  prefix) began with, they are long (1,024 tokens is where providers begin to keep), and the
  provider says that it read nothing from its cache. One that says nothing about it may have.
* **context_twice**, **oversize_context**: see `context`.

Only where messages, arguments and results are captured. They are compared by hash in the lake's
SQL; their text is not read into the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engram.learning.jobs.optimizations.context import twice
from engram.learning.jobs.optimizations.reading import HOUR, MINUTE, MS, Period, paths
from engram.learning.jobs.optimizations.repeats import OF_RUN

if TYPE_CHECKING:
    import polars as pl

    from engram.learning.jobs.runner import Read

MOST: Final = 25_000
"""Calls of models and tools that are looked at, the newest ones."""

TTL: Final = HOUR
WORTH: Final = 50 * MS
"""A shorter call is not worth a cache."""
AGREE: Final = 0.95
"""Of repeated questions, the share with the same answer."""
HITS: Final = 0.2
"""Of calls, the share that a cache would answer."""

PREFIX_TTL: Final = 5 * MINUTE
LONG_CONTEXT: Final = 1024
"""Tokens from which providers keep a prefix."""
PREFIXES: Final = (4096, 8192, 16384, 32768, 65536, 131072)
"""Lengths at which beginnings are compared, in characters; 4,096 are about 1,024 tokens."""

WRITES: Final = (
    "write|edit|update|create|delete|remove|insert|set|put|post|patch|send|apply|save|move|rename|"
    "commit|push|run|exec|execute|bash|shell|python|click|type|add|append|book|order|buy|pay|submit"
)
"""Words in the name of a tool after whose call the world may be another one."""

_FIELDS: Final = {
    "given": ("gen_ai.tool.call.arguments", "tool.parameters", "input.value",
              "traceloop.entity.input"),
    "got": ("gen_ai.tool.call.result", "output.value", "traceloop.entity.output"),
    "system": ("gen_ai.system_instructions",),
    "asked": ("gen_ai.input.messages", "gen_ai.prompt", "input.value"),
    "said": ("gen_ai.output.messages", "gen_ai.completion", "output.value"),
    "tokens_in": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens",
                  "llm.token_count.prompt"),
    "tokens_out": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens",
                   "llm.token_count.completion"),
    "cached": ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
               "llm.token_count.prompt_details.cache_read"),
    "tool_name": ("gen_ai.tool.name", "tool.name"),
    "openinference": ("openinference.span.kind",),
}  # fmt: skip
_PATHS: Final = list(dict.fromkeys(name for names in _FIELDS.values() for name in names))


def _read(field: str) -> str:
    """A field of the list `v`, which has the values of `_PATHS`."""
    places = [f"v[{_PATHS.index(name) + 1}]" for name in _FIELDS[field]]
    return f"coalesce({', '.join(places)})" if len(places) > 1 else places[0]


def _hashes(given: str, got: str) -> str:
    """What is kept of texts."""
    begins = ", ".join(
        f"CASE WHEN strlen({given}) >= {size} THEN hash(left({given}, {size})) END AS begins_{size}"
        for size in PREFIXES
    )
    return (
        f"strlen({given}) AS size, CASE WHEN {given} <> '' THEN hash({given}) END AS question, "
        f"CASE WHEN {got} IS NOT NULL THEN hash({got}) END AS answer, {begins}"
    )


def asked(read: Read, span: Period) -> pl.DataFrame:
    """Calls of models and tools: what they were asked and what they said, as hashes."""
    import polars as pl

    models = "('chat', 'text_completion', 'generate_content')"
    calls = (
        "start_time_unix_nano >= ? AND start_time_unix_nano < ? AND (gen_ai_operation_name IN "
        "('chat', 'text_completion', 'generate_content', 'execute_tool') "
        "OR scope_name LIKE 'openinference.%')"
    )
    oldest = read(
        "SELECT coalesce(min(began), 0) AS began, count(*) AS calls FROM ("
        f"SELECT start_time_unix_nano AS began FROM lake.spans WHERE {calls} "
        f"ORDER BY began DESC LIMIT {MOST})",
        [span.since, span.until],
    )
    since = int(oldest["began"][0])
    counts = ", ".join(
        f"CAST({_read(name)} AS BIGINT) AS {name}" for name in ("tokens_in", "tokens_out", "cached")
    )
    begins = ", ".join(f"coalesce(told.begins_{n}, called.begins_{n}) AS begins_{n}"
                       for n in PREFIXES)  # fmt: skip
    own = ", ".join(f"begins_{n}" for n in PREFIXES)
    text = f"coalesce({_read('system')}, '') || {_read('asked')}"
    # Texts become hashes in the scan: they are long, and a join would hold them all.
    found = read(
        f"""
        WITH called AS (
            SELECT * EXCLUDE (v, given, got, what, name),
                CASE WHEN tool THEN 'tool ' || coalesce({_read("tool_name")}, name)
                    ELSE 'model ' || coalesce(model, name) END AS operation,
                {counts}, {_hashes("given", "got")}
            FROM (
                SELECT *, coalesce(what, {_read("openinference")}) IN ('execute_tool', 'TOOL')
                        AS tool,
                    CASE WHEN tool THEN {_read("given")} ELSE {text} END AS given,
                    CASE WHEN tool THEN {_read("got")} ELSE {_read("said")} END AS got,
                    CASE WHEN NOT tool THEN {twice(_read("asked"))} END AS twice
                FROM (
                    SELECT trace_id, span_id, parent_span_id AS parent,
                        coalesce(service_name, '') AS service,
                        start_time_unix_nano AS began, end_time_unix_nano AS ended,
                        gen_ai_operation_name AS what, name, gen_ai_request_model AS model,
                        status_code = 2 OR error_type IS NOT NULL AS failed,
                        json_extract_string(attributes, {paths(*_PATHS)}) AS v
                    FROM lake.spans WHERE {calls}
                )
                WHERE tool OR what IN {models} OR {_read("openinference")} = 'LLM'
            )
        ),
        told AS (
            SELECT trace_id, span_id, twice, {_hashes("given", "got")}
            FROM (
                SELECT trace_id, span_id, {text} AS given, {_read("said")} AS got,
                    {twice(_read("asked"))} AS twice
                FROM (
                    SELECT trace_id, span_id, json_extract_string(attributes, {paths(*_PATHS)}) AS v
                    FROM lake.logs
                    -- OpenAI's instrumentation leaves the time out and says when it was observed.
                    WHERE greatest(time_unix_nano, observed_time_unix_nano) >= ?
                        AND event_name = 'gen_ai.client.inference.operation.details'
                        AND span_id IS NOT NULL
                )
            )
        )
        SELECT called.* EXCLUDE (size, question, answer, twice, {own}),
            coalesce(told.twice, called.twice) AS twice,
            coalesce(told.size, called.size) AS size,
            coalesce(told.question, called.question) AS question,
            coalesce(told.answer, called.answer) AS answer, {begins}
        FROM called LEFT JOIN told USING (trace_id, span_id)
        """,
        [max(since, span.since), span.until, since],
    )
    ordered = found.with_columns(pl.col("model").fill_null("")).sort("began", "span_id", "question")
    return ordered.unique(["trace_id", "span_id"], keep="first", maintain_order=True)


def _writes() -> pl.Expr:
    """Whether a tool by its name may change something."""
    import polars as pl

    name = pl.col("operation").str.replace("^tool ", "")
    words = name.str.to_lowercase().str.contains(rf"(^|[^a-z])({WRITES})([^a-z]|$)")
    camel = name.str.contains(rf"(^|[^a-zA-Z])(?i:{WRITES})[A-Z]")
    return pl.col("tool") & (words | camel)


def within(calls: pl.DataFrame) -> pl.DataFrame:
    """`same_prompt`, `same_tool_call`, of calls that know their run."""
    import polars as pl

    keys = ["place", "service", "operation", "question", "epoch"]
    changes = pl.col("tool") & (pl.col("failed") | _writes())
    # Between two calls with something in between that changes, all may be another.
    epoch = pl.when("tool").then(changes.cast(pl.Int64).cum_sum().over("trace_id")).otherwise(0)
    fine = calls.with_columns(epoch.alias("epoch")).filter(
        pl.col("question").is_not_null() & ~pl.col("failed")
    )
    length = pl.col("ended") - pl.col("began")
    tokens = pl.col("tokens_in").fill_null(0) + pl.col("tokens_out").fill_null(0)
    found = (
        fine.with_columns(
            (pl.col("began") >= pl.col("ended").cum_max().shift(1).over(keys)).alias("after")
        )
        .group_by(keys, maintain_order=True)
        .agg(
            pl.len().alias("times"),
            pl.col("began").min(),
            pl.col("ended").max(),
            length.slice(1).sum().alias("wasted"),
            tokens.slice(1).sum().alias("tokens"),
            pl.col("after").all(),
            pl.col("tool", *OF_RUN).first(),
            pl.col("answer").n_unique().alias("answers"),
            pl.col("span_id").first(),
        )
        .filter((pl.col("times") >= 2) & pl.col("after"))
        .filter(~pl.col("tool") | (pl.col("answers") == 1))
    )
    kind = pl.when("tool").then(pl.lit("same_tool_call")).otherwise(pl.lit("same_prompt"))
    return found.with_columns(kind.alias("kind"))


def cacheable(calls: pl.DataFrame) -> pl.DataFrame:
    """Hits that a cache would have had, of operations that answer alike. They know their run."""
    import polars as pl

    keys = ["service", "operation", "question"]
    known = calls.filter(
        pl.col("question").is_not_null()
        & pl.col("answer").is_not_null()
        & ~pl.col("failed")
        & ~_writes()
    )
    apart = known.group_by(*keys, "trace_id", maintain_order=True).first()  # repeats are `within`
    apart = apart.sort("began", "span_id").with_columns(
        pl.col("answer").shift(1).over(keys).alias("before"),
        (pl.col("began") - pl.col("ended").shift(1).over(keys)).alias("age"),
        (pl.col("ended") - pl.col("began")).alias("wasted"),
    )
    again = pl.col("age").is_between(0, TTL)
    hit = again & (pl.col("before") == pl.col("answer"))
    of = ["service", "entry", "operation"]
    some = (
        apart.group_by(of)
        .agg(
            pl.len().alias("calls"),
            again.sum().alias("again"),
            hit.sum().alias("hits"),
            pl.col("wasted").median().alias("usual"),
        )
        .filter(
            (pl.col("hits") >= HITS * pl.col("calls"))
            & (pl.col("hits") >= AGREE * pl.col("again"))
            & (pl.col("usual") >= WORTH)
        )
    )
    return (
        apart.join(some, on=of, how="semi")
        .filter(hit)
        .with_columns(
            pl.lit("cacheable").alias("kind"),
            pl.lit(1, pl.UInt32).alias("times"),
            (pl.col("tokens_in").fill_null(0) + pl.col("tokens_out").fill_null(0)).alias("tokens"),
        )
    )


def sent_again(calls: pl.DataFrame) -> pl.DataFrame:
    """`context_sent_again`: tokens that a provider's prefix cache would have known."""
    import polars as pl

    keys = ["service", "operation"]
    long = calls.filter(
        ~pl.col("tool") & ~pl.col("failed") & (pl.col("tokens_in") >= LONG_CONTEXT)
        & (pl.col("size") >= PREFIXES[0])
    )  # fmt: skip
    near = (
        pl.col("began") - pl.col("began").shift(1).over(keys) <= PREFIX_TTL
    ).fill_null(False)  # fmt: skip
    shared = pl.max_horizontal(
        pl.when((pl.col(f"begins_{size}") == pl.col(f"begins_{size}").shift(1).over(keys)) & near)
        .then(size)
        .otherwise(0)
        for size in PREFIXES
    )
    share = pl.col("shared") / pl.col("size")
    return (
        long.with_columns(shared.alias("shared"))
        .filter((share >= 0.5) & (pl.col("cached") == 0))
        .with_columns((pl.col("tokens_in") * share).floor().cast(pl.Int64).alias("tokens"))
        .group_by("trace_id", *keys, maintain_order=True)
        .agg(
            pl.len().alias("times"),
            pl.col("began").min(),
            pl.col("ended").max(),
            pl.col("tokens").sum(),
            pl.col("span_id").first(),
        )
        .with_columns(
            pl.lit("context_sent_again").alias("kind"),
            pl.lit(0, pl.Int64).alias("wasted"),
        )
    )


__all__ = ["asked", "cacheable", "sent_again", "within"]
